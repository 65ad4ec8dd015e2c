use proptest::prelude::*;

use super::*;

fn text(line: &str) -> Read {
    read(line.as_bytes())
}

fn sentence(read: Read) -> String {
    match read {
        Read::Refused(fault) => fault.to_string(),
        other => panic!("{other:?}"),
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A header of version 2 with this command, family and rest.
pub fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = BINARY.to_vec();
    bytes.extend([command, family]);
    bytes.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
    bytes.extend(rest);
    bytes
}

const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 0x04, 0x17, 0x32];

fn v4_with(tlvs: &[u8]) -> Vec<u8> {
    binary(0x21, 0x11, &[&V4, tlvs].concat())
}

fn tlv_of(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[kind], &length[..], value].concat()
}

#[test]
fn takes_the_lines_of_the_text() {
    // Section 2.1, and its longest.
    let line = "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n";
    let source = address("192.168.0.1:56324");
    let destination = address("192.168.0.11:443");
    let expected = Read::Header { source, destination, consumed: 47 };
    assert_eq!(text(line), expected);
    assert_eq!(text(&format!("{line}GET / HTTP/1.1\r\n")), expected, "what follows is not its");
    let longest = "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n";
    assert!(matches!(text(longest), Read::Header { consumed: 56, .. }));
    let six = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffF";
    let longest = format!("PROXY TCP6 {six} {six} 65535 65535\r\n");
    assert!(matches!(text(&longest), Read::Header { consumed: 104, .. }));
    let Read::Header { source, .. } = text("PROXY TCP6 2001:DB8::1 ::1 1 0\r\n") else { panic!() };
    assert_eq!(source, address("[2001:db8::1]:1"));
    let Read::Header { source, .. } = text("PROXY TCP6 ::ffff:192.0.2.9 ::1 1 0\r\n") else {
        panic!()
    };
    assert_eq!(source, address("192.0.2.9:1"), "one of IPv4 is given as such");
}

#[test]
fn unknown_is_a_health_check() {
    assert_eq!(text("PROXY UNKNOWN\r\n"), Read::HealthCheck { consumed: 15 });
    let worst = format!("PROXY UNKNOWN {0} {0} 65535 65535\r\n", "ffff:".repeat(7) + "ffff");
    assert_eq!(text(&worst), Read::HealthCheck { consumed: 107 });
    assert_eq!(text("PROXY UNKNOWN"), Read::NeedMore);
    assert_eq!(text("PROXY UNKNOWN\r"), Read::NeedMore);
    assert_eq!(text("PROXY UNKNOWN what ever\r\nSSH-"), Read::HealthCheck { consumed: 25 });
}

#[test]
fn refuses_any_other_line() {
    for (line, why) in [
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n", "CR LF"),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\rX", "CR LF"),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n", "more than two"),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n", "more than two"),
        ("PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "more than two"),
        ("PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n", "more than two"),
        ("PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n", "no protocol"),
        ("PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n", "no protocol"),
        ("PROXY UNKNOWNX\r\n", "no protocol"),
        ("PROXY \r\n", "no protocol"),
        ("PROXY TCP4\r\n", "address"),
        ("PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n", "address"),
        ("PROXY TCP4 192.0.2 192.0.2.2 1 2\r\n", "address"),
        ("PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n", "address"),
        ("PROXY TCP4 0xc0.0.2.1 192.0.2.2 1 2\r\n", "address"),
        ("PROXY TCP4 ::1 ::2 1 2\r\n", "address"),
        ("PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n", "address"),
        ("PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", "address"),
        ("PROXY TCP6 00001::1 ::1 1 2\r\n", "address"),
        ("PROXY TCP6 1::2::3 ::1 1 2\r\n", "address"),
        ("PROXY TCP6 [::1] ::1 1 2\r\n", "address"),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n", "port"),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n", "port"),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n", "port"),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 -2\r\n", "port"),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", "port"),
        ("PROXY TCP4 192.0.2.1 192.0.2.2\t1 2\r\n", "printable"),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\0\r\n", "printable"),
        ("PROXY \x7f", "printable"),
        ("proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "does not begin with"),
        ("SSH-2.0-x\r\n", "does not begin with"),
        ("PROXZ", "does not begin with"),
    ] {
        let told = sentence(text(line));
        assert!(told.contains(why), "{line:?}: {told}");
        assert!(told.is_ascii() && told.len() <= 300);
    }
    let endless = format!("PROXY UNKNOWN {}", "x".repeat(93));
    assert_eq!(text(&endless[..106]), Read::NeedMore);
    assert!(sentence(text(&endless)).contains("longer than 107"));
    let late = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
    assert_eq!(late.len(), 108);
    assert!(sentence(text(&late)).contains("within 107"), "its LF is the 108th byte");
}

#[test]
fn takes_binary_headers() {
    let source = address("192.0.2.1:56324");
    let destination = address("198.51.100.2:5938");
    assert_eq!(read(&v4_with(&[])), Read::Header { source, destination, consumed: 28 });
    let mut six = [0; 36];
    six[..2].copy_from_slice(&[0x20, 0x01]);
    six[15] = 1;
    six[31] = 2;
    six[33] = 22;
    let expected = (address("[2001::1]:22"), address("[::2]:0"));
    let (source, destination) = expected;
    assert_eq!(read(&binary(0x21, 0x21, &six)), Read::Header { source, destination, consumed: 52 });
    // TLVs: NOOP, a name, one of a vendor, an SSL with one of its own.
    let ssl = [&[1, 0, 0, 0, 0][..], &tlv_of(0x21, b"TLSv1.3")].concat();
    let tlvs = [
        tlv_of(4, &[]),
        tlv_of(2, b"relay.example.com"),
        tlv_of(0xea, b"\x01vpce-1"),
        tlv_of(0x20, &ssl),
    ];
    assert!(matches!(read(&v4_with(&tlvs.concat())), Read::Header { .. }));
}

#[test]
fn local_and_what_is_not_tcp_are_health_checks() {
    assert_eq!(read(&binary(0x20, 0x00, &[])), Read::HealthCheck { consumed: 16 });
    assert_eq!(read(&binary(0x20, 0x11, &V4)), Read::HealthCheck { consumed: 28 });
    assert_eq!(read(&binary(0x20, 0xff, b"any")), Read::HealthCheck { consumed: 19 });
    assert_eq!(read(&binary(0x21, 0x00, &[])), Read::HealthCheck { consumed: 16 });
    for family in [0x12, 0x22, 0x31, 0x32, 0x10] {
        assert_eq!(
            read(&binary(0x21, family, &V4)),
            Read::HealthCheck { consumed: 28 },
            "{family}"
        );
    }
    let part = &binary(0x20, 0, b"rest")[..19];
    assert_eq!(read(part), Read::NeedMore, "the proxy is not reset with a byte unread");
}

#[test]
fn refuses_any_other_header() {
    let long_id = tlv_of(5, &[b'x'; 129]);
    for (bytes, why) in [
        (binary(0x11, 0x11, &V4), "version"),
        (binary(0x31, 0x11, &V4), "version"),
        (binary(0x22, 0x11, &V4), "command"),
        (binary(0x21, 0x41, &V4), "not defined"),
        (binary(0x21, 0x13, &V4), "not defined"),
        (binary(0x21, 0x11, &V4[..11]), "too short"),
        (binary(0x21, 0x21, &V4), "too short"),
        (v4_with(&[0]), "beyond its end"),
        (v4_with(&[4, 0]), "beyond its end"),
        (v4_with(&[4, 0, 1]), "beyond its end"),
        (v4_with(&[4, 0xff, 0xff, 0]), "beyond its end"),
        (v4_with(&long_id), "unique ID"),
        (v4_with(&tlv_of(0x20, &[0; 4])), "malformed"),
        (v4_with(&tlv_of(0x20, &[0; 6])), "malformed"),
        (v4_with(&tlv_of(3, &[0; 3])), "4 bytes"),
        (v4_with(&tlv_of(3, &[0; 4])), "checksum of the PROXY header is wrong"),
        (v4_with(&tlv_of(3, &[0; 4]).repeat(2)), "two checksums"),
        (binary(0x21, 0x11, &[0; 1445]), "longer than 1460"),
        (binary(0x20, 0x00, &vec![0; 65535]), "longer than 1460"),
    ] {
        let told = sentence(read(&bytes));
        assert!(told.contains(why), "{bytes:?}: {told}");
        assert!(told.is_ascii() && told.len() <= 300);
    }
    // Oversized is known from the length alone.
    assert!(sentence(read(&binary(0x21, 0x11, &[0; 9000])[..16])).contains("longer"));
    let most = [&V4[..], &tlv_of(4, &[0; 1460 - 16 - 12 - 3])].concat();
    assert!(matches!(read(&binary(0x21, 0x11, &most)), Read::Header { consumed: 1460, .. }));
}

#[test]
fn a_checksum_is_checked() {
    let mut bytes = v4_with(&[tlv_of(4, b"pad"), tlv_of(3, &[0; 4])].concat());
    let at = bytes.len() - 4;
    let sum = super::crc::crc32c(bytes.iter().copied()).to_be_bytes();
    bytes[at..].copy_from_slice(&sum);
    assert!(matches!(read(&bytes), Read::Header { .. }));
    // But for its own type, 7 bytes from the end.
    for changed in (16..bytes.len()).filter(|at| at + 7 != bytes.len()) {
        let mut other = bytes.clone();
        other[changed] ^= 1;
        assert!(matches!(read(&other), Read::Refused(_)), "byte {changed}");
    }
}

proptest! {
    /// What is said of a prefix holds for all that follows, and is said by the bytes of the header alone.
    #[test]
    fn more_bytes_change_no_answer(
        head in prop_oneof![
            any::<Vec<u8>>(),
            "PROXY (TCP4|TCP6|UNKNOWN|X) ?[0-9.:a-f]{0,20} ?[0-9.]{7,12} [0-9]{1,6} [0-9]{1,5}\r?\n?"
                .prop_map(String::into_bytes),
            (0u8..0x40, 0u8..0x40, proptest::collection::vec(any::<u8>(), 0..300))
                .prop_map(|(command, family, rest)| binary(command, family, &rest)),
            proptest::collection::vec((0u8..0x24, proptest::collection::vec(any::<u8>(), 0..40)), 0..6)
                .prop_map(|all| v4_with(&all.iter().flat_map(|(kind, value)| tlv_of(*kind, value)).collect::<Vec<_>>())),
        ],
        tail in any::<Vec<u8>>(),
    ) {
        let whole = [&head[..], &tail].concat();
        let last = read(&whole);
        let mut answer = Read::NeedMore;
        for end in 0..=whole.len() {
            let now = read(&whole[..end]);
            if answer != Read::NeedMore {
                prop_assert_eq!(&now, &answer);
            }
            if let Read::Header { consumed, .. } | Read::HealthCheck { consumed } = now {
                prop_assert!(consumed <= end && consumed <= MOST);
            }
            prop_assert!(now != Read::NeedMore || end < MOST);
            answer = now;
        }
        prop_assert_eq!(answer, last);
    }
}
