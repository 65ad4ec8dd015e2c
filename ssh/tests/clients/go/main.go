// x/crypto/ssh as a client. What it reads and answers is in ../python.py.
package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

const patience = 30 * time.Second

func main() {
	fmt.Println(version())
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if err := run(lines.Text()); err != nil {
			fmt.Println("error", strings.Join(strings.Fields(err.Error()), " "))
		} else {
			fmt.Println("ok")
		}
	}
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			if module.Path == "golang.org/x/crypto" {
				return module.Version
			}
		}
	}
	return "unknown"
}

func run(line string) error {
	var port, size, rekey int
	var file, ciphers string
	if _, err := fmt.Sscan(line, &port, &file, &size, &rekey, &ciphers); err != nil {
		return err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	key, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return err
	}
	config := &ssh.ClientConfig{
		User:            "alice",
		Auth:            []ssh.AuthMethod{ssh.PublicKeys(key)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(),
		Timeout:         patience,
	}
	config.RekeyThreshold = uint64(rekey)
	if ciphers != "-" {
		config.Ciphers = strings.Split(ciphers, ",")
	}
	client, err := ssh.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port), config)
	if err != nil {
		return err
	}
	defer client.Close()
	late := time.AfterFunc(patience, func() { client.Close() })
	defer late.Stop()
	listener, err := client.Listen("tcp", "localhost:0")
	if err != nil {
		return fmt.Errorf("forward: %w", err)
	}
	if err := transfer(client, size); err != nil {
		return fmt.Errorf("transfer: %w", err)
	}
	if err := echo(listener); err != nil {
		return fmt.Errorf("forward: %w", err)
	}
	return command(client)
}

func echo(listener net.Listener) error {
	forwarded, err := listener.Accept()
	if err != nil {
		return err
	}
	all, err := io.ReadAll(forwarded)
	if err != nil {
		return err
	}
	if _, err := forwarded.Write(all); err != nil {
		return err
	}
	return forwarded.(interface{ CloseWrite() error }).CloseWrite()
}

func transfer(client *ssh.Client, size int) error {
	terminal, err := client.Dial("tcp", "kiosk-17:22")
	if err != nil {
		return err
	}
	data := make([]byte, size)
	if _, err := rand.Read(data); err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() { sent <- send(terminal, data) }()
	hash := sha256.New()
	count, err := io.Copy(hash, terminal)
	if err != nil {
		return err
	}
	if err := <-sent; err != nil {
		return err
	}
	if wanted := sha256.Sum256(data); !bytes.Equal(hash.Sum(nil), wanted[:]) {
		return fmt.Errorf("%d of %d bytes came back, or others", count, size)
	}
	return nil
}

func send(terminal net.Conn, data []byte) error {
	if _, err := terminal.Write(data); err != nil {
		return err
	}
	return terminal.(interface{ CloseWrite() error }).CloseWrite()
}

func command(client *ssh.Client) error {
	session, err := client.NewSession()
	if err != nil {
		return err
	}
	var out, errors bytes.Buffer
	session.Stdout, session.Stderr = &out, &errors
	err = session.Run("after")
	exit, ok := err.(*ssh.ExitError)
	if !ok || exit.ExitStatus() != 3 || out.String() != "after pty=false\r\n" ||
		errors.String() != "this is stderr\r\n" {
		return fmt.Errorf("the command ended as %v with %q and %q", err, &out, &errors)
	}
	return nil
}
