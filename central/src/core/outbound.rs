//! Where central may connect to when somebody else gave the address: a device its push endpoint, an admin a callback.
//!
//! The rules are here, apart from sockets and resolvers, because they are what an attacker tries and so have to be
//! tested by tables. [`HttpsUrl`] takes only what reads the same to everybody: no user information, no escapes in the
//! host, no address that is written as anything but an address. [`Rules`] then say which ports and which addresses may
//! be connected to. Who connects asks for *every* address that a name resolves to, and connects to one that was asked
//! for: see `shell/outbound.rs`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

/// Bytes of a URL at most. Push endpoints have some hundreds.
pub const URL_BYTES_MAX: usize = 2048;
/// Bytes of a host's name at most, as in DNS.
const HOST_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// An absolute `https` URL without user information and fragment.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpsUrl {
    host: Host,
    port: u16,
    /// From the first `/` or `?` on; at least `/`.
    path: Arc<str>,
}

/// What is connected to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// In lower case.
    Name(Arc<str>),
    Address(IpAddr),
}

/// Why a URL is not one that we connect to. It never quotes the URL, which may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("a URL has at most {URL_BYTES_MAX} bytes")]
    TooLong,
    #[error("a URL has only visible ASCII characters, and none of \\ \" < > ^ ` {{ | }}")]
    Character,
    #[error("a URL begins with https://")]
    NotHttps,
    #[error("a URL has no user information")]
    UserInfo,
    #[error("a URL has no fragment")]
    Fragment,
    #[error("a URL's host is a name of letters, digits and hyphens, or a plain IP address")]
    Host,
    #[error("a URL's port is a number from 1 to 65535")]
    Port,
}

impl HttpsUrl {
    pub const fn host(&self) -> &Host {
        &self.host
    }

    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Path and query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// `host`, or `host:port` if the port is not 443.
    pub fn authority(&self) -> String {
        if self.port == 443 {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Scheme and authority.
    pub fn origin(&self) -> String {
        format!("https://{}", self.authority())
    }
}

impl FromStr for HttpsUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<HttpsUrl, UrlError> {
        if text.len() > URL_BYTES_MAX {
            return Err(UrlError::TooLong);
        }
        // What some parsers take for a slash, drop, or decode, is not for us to guess.
        let odd = |b: u8| !b.is_ascii_graphic() || b"\\\"<>^`{|}".contains(&b);
        if text.bytes().any(odd) {
            return Err(UrlError::Character);
        }
        const SCHEME: &str = "https://";
        let rest = match text.get(..SCHEME.len()) {
            Some(scheme) if scheme.eq_ignore_ascii_case(SCHEME) => &text[SCHEME.len()..],
            _ => return Err(UrlError::NotHttps),
        };
        if rest.contains('#') {
            return Err(UrlError::Fragment);
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(UrlError::UserInfo);
        }
        let (host, port) = split_port(authority)?;
        let path = match path.as_bytes().first() {
            None => "/".into(),
            Some(b'?') => format!("/{path}").into(),
            Some(_) => path.into(),
        };
        Ok(HttpsUrl { host: host.parse()?, port, path })
    }
}

fn split_port(authority: &str) -> Result<(&str, u16), UrlError> {
    let end = match authority.find(']') {
        Some(bracket) => bracket + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at(end);
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => 443,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => match digits.parse() {
            Ok(0) | Err(_) => return Err(UrlError::Port),
            Ok(port) => port,
        },
        _ => return Err(UrlError::Port),
    };
    Ok((host, port))
}

impl FromStr for Host {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Host, UrlError> {
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(UrlError::Host)?;
            return inner.parse().map(IpAddr::V6).map(Host::Address).map_err(|_| UrlError::Host);
        }
        // Four decimal numbers without leading zeros; nothing else is an IPv4 address.
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Ok(Host::Address(IpAddr::V4(address)));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let is_label = |label: &str| {
            !label.is_empty()
                && label.len() <= LABEL_BYTES_MAX
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if name.len() > HOST_BYTES_MAX || !name.split('.').all(is_label) {
            return Err(UrlError::Host);
        }
        // A last label such as `1`, `017` or `0x7f` makes the host a number to many resolvers.
        let last = name.rsplit('.').next().unwrap_or(name);
        if last.as_bytes()[0].is_ascii_digit() {
            return Err(UrlError::Host);
        }
        Ok(Host::Name(text.to_ascii_lowercase().into()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::Address(IpAddr::V4(address)) => address.fmt(f),
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// Without the path, which may hold a secret.
impl fmt::Debug for HttpsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpsUrl({}, ..)", self.origin())
    }
}

/// A block of addresses, such as `10.0.0.0/8` or `fd00::/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    /// Leading bits that count.
    bits: u8,
}

impl Network {
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(net), IpAddr::V4(address)) => {
                (net.to_bits() ^ address.to_bits()).leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V6(net), IpAddr::V6(address)) => {
                (net.to_bits() ^ address.to_bits()).leading_zeros() >= u32::from(self.bits)
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Network, &'static str> {
        const WRONG: &str = "expected a network such as 10.0.0.0/8 or fd00::/8";
        let (address, bits) = text.split_once('/').ok_or(WRONG)?;
        let address: IpAddr = address.parse().map_err(|_| WRONG)?;
        let bits: u8 = bits.parse().map_err(|_| WRONG)?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        if bits > bits_max { Err(WRONG) } else { Ok(Network { address, bits }) }
    }
}

/// What may be connected to.
#[derive(Clone, Debug)]
pub struct Rules {
    pub ports: Arc<[u16]>,
    /// Allowed although they are not public: push services within the operator's own network.
    pub private_networks: Arc<[Network]>,
}

impl Rules {
    /// Whether an address may be connected to: it is a public one, or in a network that is allowed nevertheless.
    pub fn allow(&self, address: IpAddr) -> bool {
        let address = normalised(address);
        is_public(address) || self.private_networks.iter().any(|net| net.contains(address))
    }
}

/// The address that packets to `address` end up at: an IPv4 address within an IPv6 one is that IPv4 address.
pub fn normalised(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let inner = |bits: u32| IpAddr::V4(Ipv4Addr::from_bits(bits));
    let octets = v6.octets();
    let last = u32::from_be_bytes([octets[12], octets[13], octets[14], octets[15]]);
    match v6.segments() {
        // ::ffff:a.b.c.d, and ::a.b.c.d but for :: and ::1 themselves.
        [0, 0, 0, 0, 0, 0xffff, _, _] => inner(last),
        [0, 0, 0, 0, 0, 0, _, _] if last > 1 => inner(last),
        // NAT64 (RFC 6052) carries the host's every connection to IPv4 where there is no IPv4.
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] => inner(last),
        // 6to4 (RFC 3056) has it behind the prefix.
        [0x2002, high, low, ..] => inner(u32::from(high) << 16 | u32::from(low)),
        _ => address,
    }
}

/// Whether an address, [`normalised`], is one that anybody on the Internet could be given. From the special-purpose
/// registries of IANA; what is not known to be public is not.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            !matches!(
                (a, b, c),
                // This network, private use, shared (carrier NAT), loopback, link-local with the clouds' metadata.
                (0 | 10 | 127, ..) | (100, 64..=127, _) | (169, 254, _)
                // Private use, protocol assignments, documentation, 6to4 relays, private use, benchmarks.
                | (172, 16..=31, _) | (192, 0, 0 | 2) | (192, 88, 99) | (192, 168, _) | (198, 18..=19, _)
                // Documentation twice, multicast, reserved, broadcast.
                | (198, 51, 100) | (203, 0, 113) | (224.., ..)
            )
        }
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // Protocol assignments with Teredo and ORCHID, documentation, 6to4, documentation.
        [0x2001, 0..=0x01ff, ..] | [0x2001, 0x0db8, ..] | [0x2002, ..] => false,
        [0x3fff, 0..=0x0fff, ..] => false,
        // Of all space only this is handed out as global unicast.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_only_if_it_reads_the_same_to_everybody() {
        for (text, host, port, path) in [
            ("https://push.example", "push.example", 443, "/"),
            ("HTTPS://Push.Example/a/b?c=d", "push.example", 443, "/a/b?c=d"),
            ("https://push.example:8443?x", "push.example", 8443, "/?x"),
            ("https://8.8.8.8/x", "8.8.8.8", 443, "/x"),
            ("https://[2606:4700::1]:443/x", "[2606:4700::1]", 443, "/x"),
            ("https://xn--bcher-kva.example./", "xn--bcher-kva.example.", 443, "/"),
        ] {
            let url: HttpsUrl = text.parse().unwrap();
            assert_eq!(
                (url.host().to_string().as_str(), url.port(), url.path()),
                (host, port, path)
            );
        }
        for (text, why) in [
            ("http://push.example/", UrlError::NotHttps),
            ("//push.example/", UrlError::NotHttps),
            ("https:/push.example/", UrlError::NotHttps),
            ("https://", UrlError::Host),
            ("https:///x", UrlError::Host),
            ("https://user@push.example/", UrlError::UserInfo),
            ("https://push.example:443@127.0.0.1/", UrlError::UserInfo),
            ("https://push.example\\@127.0.0.1/", UrlError::Character),
            ("https://push.example/ x", UrlError::Character),
            ("https://push.example/\r\nx: y", UrlError::Character),
            ("https://bücher.example/", UrlError::Character),
            ("https://push.example/#@127.0.0.1", UrlError::Fragment),
            ("https://2130706433/", UrlError::Host),
            ("https://0x7f000001/", UrlError::Host),
            ("https://0x7f.0.0.1/", UrlError::Host),
            ("https://017700000001/", UrlError::Host),
            ("https://0177.0.0.1/", UrlError::Host),
            ("https://127.1/", UrlError::Host),
            ("https://127.0.0.1./", UrlError::Host),
            ("https://push..example/", UrlError::Host),
            ("https://push.example%2e/", UrlError::Host),
            ("https://[fe80::1%25eth0]/", UrlError::Host),
            ("https://[::1/", UrlError::Port),
            ("https://::1/", UrlError::Port),
            ("https://push.example:0/", UrlError::Port),
            ("https://push.example:65536/", UrlError::Port),
            ("https://push.example:+443/", UrlError::Port),
            ("https://push.example:/", UrlError::Port),
            ("https://[::1]443/", UrlError::Port),
        ] {
            assert_eq!(text.parse::<HttpsUrl>().unwrap_err(), why, "{text}");
        }
        let long = format!("https://push.example/{}", "x".repeat(URL_BYTES_MAX));
        assert_eq!(long.parse::<HttpsUrl>().unwrap_err(), UrlError::TooLong);
    }

    #[test]
    fn only_public_addresses_are_connected_to_unless_a_network_is_allowed() {
        let rules = |networks: &[&str]| Rules {
            ports: Arc::new([443]),
            private_networks: networks.iter().map(|net| net.parse().unwrap()).collect(),
        };
        let none = rules(&[]);
        for public in [
            "8.8.8.8",
            "1.1.1.1",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450:4001::1",
            "64:ff9b::808:808",
            "::ffff:8.8.8.8",
            "2002:808:808::1",
        ] {
            assert!(none.allow(public.parse().unwrap()), "{public}");
        }
        for closed in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::7f00:1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::808:808",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2001:20::1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!none.allow(closed.parse().unwrap()), "{closed}");
        }
        let some = rules(&["127.0.0.0/8", "fd00::/8"]);
        for open in ["127.0.0.1", "::ffff:127.0.0.1", "fd12::1", "8.8.8.8"] {
            assert!(some.allow(open.parse().unwrap()), "{open}");
        }
        for closed in ["10.0.0.1", "::1", "fc00::1"] {
            assert!(!some.allow(closed.parse().unwrap()), "{closed}");
        }
        for bad in ["127.0.0.1", "10.0.0.0/33", "fd00::/129", "x/8", "10.0.0.0/"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }
}
