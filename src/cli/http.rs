//! Asks a running proxy's admin server.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use anyhow::Context as _;

use crate::core::address::Address;

/// The address of an admin server, also as a browser shows it: `http://host:port/`.
pub(super) fn admin_address(text: &str) -> anyhow::Result<Address> {
    anyhow::ensure!(
        !text.starts_with("https://"),
        "the admin server speaks plain HTTP: http:// or host:port"
    );
    let Some(rest) = text.strip_prefix("http://") else { return Ok(text.parse()?) };
    Ok(rest.split_once('/').map_or(rest, |(host, _)| host).parse()?)
}

/// What is served at `target`, if that is well (200).
pub(super) fn fetch(host: &str, port: u16, target: &str) -> anyhow::Result<String> {
    let (status, body) = get(host, port, target)?;
    anyhow::ensure!(status == "200", "it answered {status}: {}", body.trim_end().escape_debug());
    Ok(body)
}

/// A GET over HTTP/1.0, whose answer ends when the server closes: no need for a client library. The status, and the body.
pub(super) fn get(host: &str, port: u16, target: &str) -> anyhow::Result<(String, String)> {
    let mut stream = connect(host, port)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(format!("GET {target} HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX + 1).read_to_end(&mut answer)?;
    anyhow::ensure!(answer.len() as u64 <= ANSWER_MAX, "the answer is longer than {ANSWER_MAX} bytes");
    let answer = String::from_utf8(answer).context("the answer is not UTF-8")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is not HTTP")?;
    let status =
        head.split(' ').nth(1).filter(|_| head.starts_with("HTTP/1.")).context("the answer is not HTTP")?;
    Ok((status.to_owned(), body.to_owned()))
}

fn connect(host: &str, port: u16) -> anyhow::Result<TcpStream> {
    let mut last = None;
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or_else(|| anyhow::anyhow!("the name has no address"), Into::into))
}

/// How long the admin server may take to do each: be connected to, be asked, answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The longest answer that is read.
const ANSWER_MAX: u64 = 1 << 20;
