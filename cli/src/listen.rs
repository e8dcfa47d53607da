//! From flags to the addresses that are listened on.

use std::net::{SocketAddr, ToSocketAddrs as _};

use aqueduct_broker::{BrokerConfig, HostPort};

use crate::args::BrokerFlags;
use crate::failure::Failure;

/// Looks a host up; IPv4 first, because that is what clients try first.
pub(crate) fn resolve(flag: &str, address: &HostPort) -> Result<SocketAddr, Failure> {
    let found = (address.host.as_str(), address.port).to_socket_addrs();
    let found: Vec<SocketAddr> =
        found.map_err(|error| Failure::usage(format!("`{flag} {address}`: {error}")))?.collect();
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| Failure::usage(format!("`{flag} {address}` is no address of this machine")))
}

/// Lays the flags over the settings, and refuses what would be open to everybody.
pub(crate) fn apply(flags: &BrokerFlags, config: &mut BrokerConfig, insecure: bool) -> Result<(), Failure> {
    if let Some(dir) = &flags.data_dir {
        config.data_dir.clone_from(dir);
    }
    if let Some(listen) = &flags.listen {
        config.listen = resolve("--listen", listen)?;
    }
    if let Some(advertise) = &flags.advertise {
        config.advertise = Some(advertise.clone());
    }
    if config.listen.ip().is_unspecified() && config.advertise.is_none() {
        return Err(Failure::usage(format!(
            "`--listen {}` is a wildcard address; say with `--advertise HOST:PORT` what clients shall connect to",
            config.listen
        )));
    }
    if !config.listen.ip().is_loopback() && !insecure {
        return Err(Failure::usage(format!(
            "`--listen {}` is reachable from other machines and nothing is authenticated; add `--insecure` to allow it",
            config.listen
        )));
    }
    let problems = config.check().err().unwrap_or_default();
    if problems.is_empty() {
        return Ok(());
    }
    Err(Failure::usage(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listen: &str, advertise: Option<&str>, insecure: bool) -> Result<BrokerConfig, Failure> {
        let parse = |text: &str| text.parse().expect("a host and a port");
        let flags =
            BrokerFlags { data_dir: None, listen: Some(parse(listen)), advertise: advertise.map(parse) };
        let mut config = BrokerConfig::default();
        apply(&flags, &mut config, insecure).map(|()| config)
    }

    #[test]
    fn a_wildcard_needs_an_advertised_address_and_consent() {
        assert!(check("0.0.0.0:0", None, true).is_err());
        assert!(check("0.0.0.0:0", Some("a.example:1"), false).is_err());
        assert!(check("0.0.0.0:0", Some("a.example:1"), true).is_ok());
        assert!(check("[::]:0", None, true).is_err());
    }

    #[test]
    fn a_name_is_looked_up() {
        assert_eq!(
            check("localhost:7", None, false).expect("loopback").listen,
            "127.0.0.1:7".parse().expect("an address")
        );
        assert!(check("no.such.host.invalid:7", None, false).is_err());
    }
}
