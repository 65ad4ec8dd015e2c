// Command probe is what the tests run in a pod to learn what a pod sees. It serves HTTP on :8080:
//
//	/              its pod's name and the address of who asks, in one line
//	/resolve/NAME  the addresses of NAME, one a line
//	/fetch/HOST/…  what http://HOST/… answers
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const patience = 5 * time.Second

func main() {
	http.HandleFunc("GET /", whoAsks)
	http.HandleFunc("GET /resolve/{name}", resolve)
	http.HandleFunc("GET /fetch/{url...}", fetch)

	server := &http.Server{Addr: ":8080"}
	ended, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-ended.Done()
		server.Close()
	}()
	log.Println("serving on :8080")
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		log.Fatal(err)
	}
}

func whoAsks(w http.ResponseWriter, r *http.Request) {
	pod, _ := os.Hostname()
	asker, _, _ := net.SplitHostPort(r.RemoteAddr)
	fmt.Fprintf(w, "%s %s\n", pod, asker)
}

func resolve(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(ctx, r.PathValue("name"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	for _, address := range addresses {
		fmt.Fprintln(w, address)
	}
}

func fetch(w http.ResponseWriter, r *http.Request) {
	client := http.Client{Timeout: patience}
	response, err := client.Get("http://" + r.PathValue("url"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer response.Body.Close()
	w.WriteHeader(response.StatusCode)
	io.Copy(w, response.Body)
}
