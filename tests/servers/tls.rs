//! TLS and Unix sockets on both sides: what works over plain TCP works over them, certificates are checked where they
//! should be and can be exchanged while the proxy runs.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::support::{
    Conn, Proxy, Redis, Sentinel, Setup, Socket, Value, encode, eventually, free_port, secs, sleep_ms,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SerialNumber,
};
use redweir::config::tls::provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

/// An authority, and a directory with its certificate and those that it has signed.
struct Authority {
    dir: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, dir.path().display().to_string());
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(dir.path().join("ca.crt"), issuer.pem()).unwrap();
        Self { dir, issuer }
    }

    /// Signs `NAME.crt` for these hosts.
    fn sign(&self, name: &str, hosts: &[&str], serial: u64) {
        let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        // Written beside and moved, so that nobody reads half of it.
        for (suffix, text) in [("key", key.serialize_pem()), ("crt", cert.pem())] {
            let beside = self.dir.path().join("new");
            fs::write(&beside, text).unwrap();
            fs::rename(&beside, self.path(&format!("{name}.{suffix}"))).unwrap();
        }
    }

    fn path(&self, file: &str) -> String {
        self.dir.path().join(file).display().to_string()
    }

    /// `ca`, `cert` and `key` as lines of a table.
    fn lines(&self, ca: &str, name: &str) -> String {
        let path = |file: String| format!("{:?}", self.path(&file));
        format!(
            "{ca} = {}\ncert = {}\nkey = {}",
            path("ca.crt".to_owned()),
            path(format!("{name}.crt")),
            path(format!("{name}.key"))
        )
    }

    /// `[[listen]]` with TLS on a free port.
    fn listener(&self, name: &str, client_ca: bool) -> (u16, String) {
        let port = free_port();
        let lines = self.lines("client-ca", name);
        let lines = if client_ca { &lines } else { lines.split_once('\n').unwrap().1 };
        (port, format!("[[listen]]\naddress = \"127.0.0.1:{port}\"\n[listen.tls]\n{lines}"))
    }

    /// The TLS of a client that trusts it, and shows the certificate of this name.
    fn client(&self, name: Option<&str>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match name {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let cert = CertificateDer::from_pem_file(self.path(&format!("{name}.crt"))).unwrap();
                let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key"))).unwrap();
                builder.with_client_auth_cert(vec![cert], key).unwrap()
            }
        })
    }

    /// A client connection to `localhost`.
    fn connect(&self, port: u16, name: Option<&str>) -> Conn {
        let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.set_nodelay(true).unwrap();
        let host = ServerName::try_from("localhost").unwrap();
        let tls = ClientConnection::new(self.client(name), host).unwrap();
        Conn::over(Socket::Tls(Box::new(StreamOwned::new(tls, socket))))
    }
}

/// The serial number of what the other side showed, as `redis-cli` and the like would print it.
fn has_serial(conn: &Conn, serial: u64) -> bool {
    let Socket::Tls(stream) = conn.socket() else { panic!("not TLS") };
    let shown = &stream.conn.peer_certificates().unwrap()[0];
    let number = serial.to_be_bytes();
    shown.windows(8).any(|window| window == number)
}

/// Big enough that no other bytes of a certificate are the same by chance.
const SERIAL: u64 = 0x1234_5678_9abc_de00;

/// A primary and a replica that speak TLS to each other and to those who show a certificate.
struct Servers {
    primary: Redis,
    replica: Redis,
    tls: [u16; 2],
}

impl Servers {
    fn start(authority: &Authority, options: &[&str]) -> Self {
        let (ca, cert, key) =
            (authority.path("ca.crt"), authority.path("node.crt"), authority.path("node.key"));
        let tls = [free_port(), free_port()];
        let start = |port: u16, more: &[&str]| {
            let port = port.to_string();
            let base = ["--tls-port", &port, "--tls-ca-cert-file", &ca, "--tls-cert-file", &cert];
            let rest = ["--tls-key-file", &key, "--tls-replication", "yes"];
            Redis::start(&[&base[..], &rest, options, more].concat())
        };
        let primary = start(tls[0], &[]);
        let replica = start(tls[1], &["--replicaof", &format!("127.0.0.1 {}", tls[0])]);
        let servers = Self { primary, replica, tls };
        servers.await_sync();
        servers
    }

    fn await_sync(&self) {
        let head = self.primary.head();
        eventually("the replica is in sync", secs(10), || {
            self.replica.applied().is_some_and(|at| at >= head)
        });
    }

    fn setup(&self) -> Setup {
        Setup::to(self.tls[0], &self.tls[1..])
    }
}

/// Everything by TLS: a listener, one that wants certificates, and the nodes.
fn all_tls() -> (Authority, Servers, Proxy, [u16; 2]) {
    let authority = Authority::new();
    authority.sign("node", &["127.0.0.1"], SERIAL);
    authority.sign("proxy", &["localhost"], SERIAL + 1);
    authority.sign("client", &["somebody"], SERIAL + 2);
    let servers = Servers::start(&authority, &[]);
    let (open, first) = authority.listener("proxy", false);
    let (mutual, second) = authority.listener("proxy", true);
    let upstream = format!("[upstream.tls]\n{}", authority.lines("ca", "proxy"));
    let proxy = servers.setup().toml(&format!("{first}\n{second}\n{upstream}")).start();
    (authority, servers, proxy, [open, mutual])
}

/// The user that the reference file says is enough for sentinels, as a line of their configuration.
fn user_of_the_reference() -> String {
    let reference = include_str!("../../config/redweir.toml");
    let table = reference.split("#[upstream.sentinel]").nth(1).unwrap();
    let lines = table.split("ACL SETUSER ").nth(1).unwrap().split("#username").next().unwrap();
    let words: Vec<&str> = lines.split_whitespace().filter(|word| *word != "#").collect();
    assert!(words.len() > 8, "{words:?}");
    format!("user {}", words.join(" ").replace(">secret", ">sesame"))
}

/// Sentinels and nodes speak TLS only with who shows a certificate, and a failover changes nothing of it.
#[test]
fn sentinels_are_asked_by_tls_as_a_user_of_few_rights() {
    let authority = Authority::new();
    authority.sign("node", &["127.0.0.1"], SERIAL);
    authority.sign("sentinel", &["sentinel.test"], SERIAL + 1);
    authority.sign("proxy", &["localhost"], SERIAL + 2);
    let mut servers = Servers::start(&authority, &[]);
    let tls = free_port();
    let file = |key: &str, file: &str| format!("tls-{key} {}", authority.path(file));
    let files = [("ca-cert-file", "ca.crt"), ("cert-file", "sentinel.crt"), ("key-file", "sentinel.key")];
    let files = files.map(|(key, name)| file(key, name)).join("\n");
    let user = user_of_the_reference();
    let lines = format!("tls-port {tls}\n{files}\ntls-replication yes\n{user}");
    let sentinel = Sentinel::start_one(&format!("127.0.0.1 {} 1", servers.tls[0]), &lines);
    sentinel.await_known("num-slaves", 1);
    let by = |table: &str| {
        let nodes = format!("[upstream.tls]\n{}", authority.lines("ca", "proxy"));
        Setup::by_sentinels(&[tls]).toml(&format!("{table}\n{nodes}"))
    };
    let table = format!("[upstream.sentinel.tls]\n{}\n", authority.lines("ca", "proxy"));
    let password = authority.path("password");
    fs::write(&password, "sesame\n").unwrap();
    let login = format!("username = \"redweir\"\npassword-file = {password:?}\n");
    // Made out to somebody else.
    let wrong = by(&format!("{login}{table}")).spawn();
    eventually("the certificate is not believed", secs(10), || wrong.log().contains("certificate"));
    assert!(wrong.view()["primary"].is_null());
    drop(wrong);

    let proxy = by(&format!("{login}{table}server-name = \"sentinel.test\"")).start_with_any_replicas();
    proxy.await_replicas(1);
    assert_eq!(proxy.cmd(&["SET", "k", "v"]), "OK");
    let denied = Conn::open(sentinel.port).cmd(&["ACL", "LOG"]);
    assert!(denied.items().is_empty(), "something was denied: {denied:?}");
    servers.primary.kill();
    let mut conn = proxy.connect();
    eventually("the new primary is followed", secs(20), || conn.cmd(&["SET", "k", "w"]) == "OK");
    assert_eq!(servers.replica.cmd(&["GET", "k"]), "w");
    assert_eq!(proxy.view()["primary"], format!("127.0.0.1:{}", servers.tls[1]));
    assert!(!proxy.log().contains("sesame"));
}

#[test]
fn everything_works_by_tls() {
    let (authority, servers, proxy, [open, mutual]) = all_tls();
    eventually("the stream is read by TLS", secs(5), || proxy.metric("redweir_stream_attached", &[]) > 0.0);
    let mut conn = authority.connect(open, None);
    assert_eq!(conn.cmd(&["SET", "k", "v"]), "OK");
    assert!(has_serial(&conn, SERIAL + 1));
    servers.await_sync();
    sleep_ms(300);
    let before = servers.replica.calls("get");
    for _ in 0..20 {
        assert_eq!(conn.cmd(&["GET", "k"]), "v");
    }
    assert!(servers.replica.calls("get") >= before + 15, "reads go to the replica");
    let list = conn.cmd(&["CLIENT", "LIST"]).text();
    assert!(list.contains(&format!("laddr=127.0.0.1:{open} ")), "{list}");
    // Another's write, which only the stream tells of.
    servers.primary.cmd(&["SET", "k", "other"]);
    eventually("another's write is seen", secs(2), || conn.cmd(&["GET", "k"]) == "other");

    let mut three = authority.connect(mutual, Some("client"));
    assert!(matches!(three.cmd(&["HELLO", "3"]), Value::Map(_)));
    assert!(matches!(three.cmd(&["CONFIG", "GET", "maxmemory"]), Value::Map(_)));
    assert_eq!(three.cmd(&["SUBSCRIBE", "news"]).items()[0], "subscribe");
    assert_eq!(conn.cmd(&["PUBLISH", "news", "extra"]), 1);
    assert_eq!(three.read().items()[2], "extra");
    assert_eq!(conn.cmd(&["MULTI"]), "OK");
    assert_eq!(conn.cmd(&["INCR", "n"]), "QUEUED");
    assert_eq!(conn.cmd(&["EXEC"]).items(), [Value::Int(1)]);

    let mut uncertified = authority.connect(mutual, None);
    assert!(uncertified.try_cmd(&["PING"]).is_err(), "no certificate, no service");
    let other = Authority::new();
    other.sign("client", &["somebody"], SERIAL + 2);
    fs::write(other.path("ca.crt"), authority.issuer.pem()).unwrap();
    let mut config = (*authority.client(None)).clone();
    config.client_auth_cert_resolver = other.client(Some("client")).client_auth_cert_resolver.clone();
    let socket = TcpStream::connect(("127.0.0.1", mutual)).unwrap();
    let tls = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap();
    let mut forged = Conn::over(Socket::Tls(Box::new(StreamOwned::new(tls, socket))));
    assert!(forged.try_cmd(&["PING"]).is_err(), "another authority's certificate");
    eventually("both are counted", secs(2), || {
        proxy.metric("redweir_tls_handshakes_failed_total", &[]) >= 2.0
    });
    assert!(proxy.log().contains("the client showed no certificate"), "{}", proxy.log());
    assert_eq!(conn.cmd(&["PING"]), "PONG");
}

#[test]
fn pipelines_and_large_values_pass_through_tls() {
    const COMMANDS: usize = 10_000;
    let (authority, servers, _proxy, [open, _]) = all_tls();
    let mut conn = authority.connect(open, None);
    let mut input = Vec::new();
    for n in 0..COMMANDS {
        match n % 3 {
            0 => input.extend(encode(&["SET", &format!("key:{}", n % 50), &n.to_string()])),
            1 => input.extend(encode(&["GET", &format!("key:{}", (n - 1) % 50)])),
            _ => input.extend(encode(&["INCR", "count"])),
        }
    }
    conn.send(&input);
    for n in 0..COMMANDS {
        match n % 3 {
            0 => assert_eq!(conn.read(), "OK", "reply {n}"),
            1 => assert_eq!(conn.read(), (n - 1).to_string().as_str(), "reply {n}"),
            _ => assert_eq!(conn.read(), n as i64 / 3 + 1, "reply {n}"),
        }
    }
    let value: Vec<u8> = (0..8 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    assert_eq!(conn.cmd(&[&b"SET"[..], b"large", &value]), "OK");
    assert!(conn.cmd(&["GET", "large"]) == Value::Bulk(value.clone()), "from wherever it is fresh");
    servers.await_sync();
    sleep_ms(300);
    let before = servers.replica.calls("get");
    assert!(conn.cmd(&["GET", "large"]) == Value::Bulk(value.clone()));
    assert_eq!(servers.replica.calls("get"), before + 1, "from the replica");

    // One that reads nothing for a while: what it is owed waits, others go on.
    let mut slow = authority.connect(open, None);
    for _ in 0..4 {
        slow.ask(&["GET", "large"]);
    }
    sleep_ms(400);
    assert_eq!(conn.cmd(&["GET", "key:1"]).text().len(), 4);
    for _ in 0..4 {
        assert!(slow.read() == Value::Bulk(value.clone()));
    }
    slow.ask(&["GET", "large"]).finish();
    assert!(slow.read() == Value::Bulk(value), "a client that ends its side is still answered");
    assert_eq!(slow.read_to_close(), b"");
}

#[test]
fn nodes_are_believed_only_with_the_right_certificate() {
    let (authority, other) = (Authority::new(), Authority::new());
    authority.sign("node", &["127.0.0.1", "redis.internal"], SERIAL);
    authority.sign("proxy", &["proxy"], SERIAL + 1);
    let servers = Servers::start(&authority, &["--requirepass", "pw", "--masterauth", "pw"]);
    let ca = format!("[upstream.tls]\nca = {:?}", other.path("ca.crt"));
    let mutual = format!("[upstream.tls]\n{}", authority.lines("ca", "proxy"));
    let cases = [
        (ca, "invalid peer certificate: UnknownIssuer"),
        (format!("{mutual}\nserver-name = \"elsewhere.internal\""), "not valid for name"),
        (format!("[upstream.tls]\nca = {:?}", authority.path("ca.crt")), "received fatal alert"),
        (mutual.clone(), "does the node speak TLS there?"),
    ];
    for (table, says) in cases {
        // Redis waits for the end of what it takes for a command.
        let setup = if says.contains("does the node") {
            Setup::to(servers.primary.port, &[])
        } else {
            servers.setup()
        };
        let setup = setup.upstream("write-hold = \"100ms\"\npassword = \"pw\"").toml(&table);
        let proxy = setup.spawn();
        eventually("the log says why", secs(5), || proxy.log().contains(says));
        let mut conn = proxy.connect();
        assert!(conn.cmd(&["SET", "k", "v"]).error().starts_with("MASTERDOWN"));
        assert!(conn.cmd(&["GET", "k"]).error().starts_with("MASTERDOWN"));
        assert_eq!(proxy.get("/readyz").0, 503);
    }
    let right = format!("{mutual}\nserver-name = \"redis.internal\"");
    let proxy = servers.setup().upstream("password = \"pw\"").toml(&right).start();
    let mut conn = proxy.connect();
    assert!(conn.cmd(&["GET", "k"]).error().starts_with("NOAUTH"));
    assert!(conn.cmd(&["AUTH", "wrong"]).error().starts_with("WRONGPASS"));
    assert_eq!(conn.cmd(&["AUTH", "pw"]), "OK");
    assert_eq!(conn.cmd(&["SET", "k", "v"]), "OK");
    assert_eq!(conn.cmd(&["GET", "k"]), "v");
}

#[test]
fn certificates_are_exchanged_while_connections_go_on() {
    let authority = Authority::new();
    authority.sign("proxy", &["localhost"], SERIAL);
    let primary = Redis::start(&[]);
    let (port, table) = authority.listener("proxy", false);
    let proxy = Setup::to(primary.port, &[]).toml(&table).start();
    let mut old = authority.connect(port, None);
    assert_eq!(old.cmd(&["PING"]), "PONG");
    assert!(has_serial(&old, SERIAL));
    let shows = |serial: u64| {
        let mut conn = authority.connect(port, None);
        assert_eq!(conn.cmd(&["PING"]), "PONG");
        has_serial(&conn, serial)
    };
    let expiry =
        proxy.metric("redweir_tls_certificate_expiry_seconds", &[("of", &format!("127.0.0.1:{port}"))]);
    // What rcgen says if nobody says otherwise: the first of January 4096.
    assert!((expiry - 67_090_118_400.0).abs() < 1.0, "{expiry}");
    authority.sign("proxy", &["localhost"], SERIAL + 1);
    eventually("the new certificate is shown", secs(5), || shows(SERIAL + 1));
    assert_eq!(old.cmd(&["PING"]), "PONG");
    assert!(proxy.metric("redweir_tls_reloads_total", &[("result", "ok")]) >= 1.0);

    let cert = authority.path("proxy.crt");
    let good = fs::read(&cert).unwrap();
    fs::write(&cert, "nonsense").unwrap();
    eventually("the broken one is told", secs(5), || proxy.log().contains("the old ones stay in force"));
    assert!(shows(SERIAL + 1));
    assert!(proxy.metric("redweir_tls_reloads_total", &[("result", "error")]) >= 1.0);
    assert!(proxy.log().contains("proxy.crt: expected a certificate in PEM"), "{}", proxy.log());

    // The way of Kubernetes: the file is a symlink through a directory that is a symlink.
    let (one, two) = (authority.dir.path().join("..1"), authority.dir.path().join("..2"));
    fs::create_dir(&one).unwrap();
    fs::create_dir(&two).unwrap();
    let key = authority.path("proxy.key");
    fs::write(one.join("proxy.crt"), &good).unwrap();
    fs::copy(&key, one.join("proxy.key")).unwrap();
    let data = authority.dir.path().join("..data");
    std::os::unix::fs::symlink(&one, &data).unwrap();
    for name in ["proxy.crt", "proxy.key"] {
        fs::remove_file(authority.path(name)).unwrap();
        std::os::unix::fs::symlink(data.join(name), authority.path(name)).unwrap();
    }
    let home = authority.dir.path().to_owned();
    let next = Authority { dir: tempfile::tempdir().unwrap(), ..authority };
    next.sign("proxy", &["localhost"], SERIAL + 2);
    for name in ["proxy.crt", "proxy.key"] {
        fs::copy(next.path(name), two.join(name)).unwrap();
    }
    let fresh = home.join("..new");
    std::os::unix::fs::symlink(&two, &fresh).unwrap();
    fs::rename(&fresh, &data).unwrap();
    proxy.hang_up();
    eventually("what the symlink leads to is shown", secs(5), || {
        let mut conn = next.connect(port, None);
        conn.cmd(&["PING"]) == "PONG" && has_serial(&conn, SERIAL + 2)
    });
    assert_eq!(old.cmd(&["PING"]), "PONG");
}

#[test]
fn what_is_not_tls_ends_one_connection() {
    let authority = Authority::new();
    authority.sign("proxy", &["localhost"], SERIAL);
    let primary = Redis::start(&[]);
    let (port, table) = authority.listener("proxy", false);
    let proxy =
        Setup::to(primary.port, &[]).toml(&table).proxy("[proxy]\nworkers = 1\nmax-clients = 4").start();
    let mut kept = authority.connect(port, None);
    assert_eq!(kept.cmd(&["PING"]), "PONG");
    for garbage in [
        &encode(&["PING"])[..],
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\xff\xff\xff\xff\xff",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
        &vec![0; 70_000],
    ] {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.set_read_timeout(Some(secs(8))).unwrap();
        // It may be closed before all of it is sent.
        let _ = socket.write_all(garbage);
        let _ = socket.shutdown(std::net::Shutdown::Write);
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest);
        assert!(!rest.starts_with(b"+PONG"), "{}", rest.escape_ascii());
        assert_eq!(kept.cmd(&["PING"]), "PONG");
    }
    eventually("all are counted", secs(2), || {
        proxy.metric("redweir_tls_handshakes_failed_total", &[]) >= 5.0
    });
    eventually("it is told", secs(5), || proxy.log().contains("the client does not speak TLS"));
    let lines = proxy.log().matches("a TLS handshake failed").count();
    assert!(lines <= 5, "{lines} lines");

    // Those that say nothing count as clients, until they have had their time.
    let silent: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    eventually("they count", secs(2), || proxy.metric("redweir_clients", &[]) >= 4.0);
    let mut refused = TcpStream::connect(("127.0.0.1", port)).unwrap();
    refused.set_read_timeout(Some(secs(2))).unwrap();
    assert_eq!(refused.read(&mut [0; 16]).unwrap(), 0, "one client too many");
    let begun = Instant::now();
    eventually("they are let go", secs(15), || proxy.metric("redweir_clients", &[]) <= 1.0);
    assert!(begun.elapsed() > secs(5));
    drop(silent);
    assert_eq!(kept.cmd(&["PING"]), "PONG");
    assert_eq!(authority.connect(port, None).cmd(&["PING"]), "PONG");
}

/// Clients that open connections and say nothing make nobody wait for long who does shake hands.
#[test]
fn who_does_not_shake_hands_keeps_nobody_out() {
    let authority = Authority::new();
    authority.sign("proxy", &["localhost"], SERIAL);
    let primary = Redis::start(&[]);
    let (port, table) = authority.listener("proxy", false);
    let proxy = Setup::to(primary.port, &[]).toml(&table).proxy("[proxy]\nworkers = 2").start();
    let silent: Vec<TcpStream> = (0..600).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    // After two seconds some of them go.
    eventually("they are there", secs(5), || proxy.metric("redweir_clients", &[]) > 511.0);
    let begun = Instant::now();
    assert_eq!(authority.connect(port, None).cmd(&["PING"]), "PONG");
    println!("{:?}", begun.elapsed());
    assert!(begun.elapsed() < secs(6), "{:?}", begun.elapsed());
    assert!(proxy.log().contains("while others waited for their turn"), "{}", proxy.log());
    drop(silent);
}

fn unix(path: &Path) -> Conn {
    Conn::over(Socket::Unix(UnixStream::connect(path).unwrap()))
}

#[test]
fn unix_sockets_work_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let socket = |name: &str| at(name).display().to_string();
    let primary = Redis::start(&["--unixsocket", &socket("primary")]);
    let replica = Redis::replica_of(primary.port, &["--unixsocket", &socket("replica")]);
    eventually("in sync", secs(10), || replica.applied().is_some_and(|applied| applied >= primary.head()));
    // Left behind by a process that was killed.
    drop(UnixListener::bind(at("proxy")).unwrap());
    let listen = format!("[[listen]]\naddress = \"unix:{}\"\nunixsocketperm = 700", socket("proxy"));
    let nodes = |name: &str| format!("unix:{}", socket(name));
    let mut proxy = Setup::at(&nodes("primary"), &[nodes("replica")]).toml(&listen).start();
    assert_eq!(fs::metadata(at("proxy")).unwrap().permissions().mode() & 0o777, 0o700);
    eventually("the stream is read", secs(5), || proxy.metric("redweir_stream_attached", &[]) > 0.0);

    let mut conn = unix(&at("proxy"));
    assert_eq!(conn.cmd(&["SET", "k", "v"]), "OK");
    eventually("in sync", secs(10), || replica.applied().is_some_and(|applied| applied >= primary.head()));
    sleep_ms(300);
    let before = replica.calls("get");
    for _ in 0..20 {
        assert_eq!(conn.cmd(&["GET", "k"]), "v");
    }
    assert!(replica.calls("get") >= before + 15, "reads go to the replica");
    let list = conn.cmd(&["CLIENT", "LIST"]).text();
    let name = format!("{}:0", socket("proxy"));
    assert!(list.contains(&format!("addr={name} laddr={name} ")), "{list}");

    // More than any socket takes at once, to one that reads late.
    let value = vec![b'x'; 8 << 20];
    assert_eq!(conn.cmd(&[&b"SET"[..], b"large", &value]), "OK");
    for _ in 0..3 {
        conn.ask(&["GET", "large"]);
    }
    sleep_ms(300);
    for _ in 0..3 {
        assert!(conn.read() == Value::Bulk(value.clone()));
    }

    // A socket that somebody listens on is not taken away, nor is a file that is no socket.
    let text = |path: &str| {
        format!("[[listen]]\naddress = \"unix:{path}\"\n[upstream]\nprimary = \"127.0.0.1:{}\"", primary.port)
    };
    fs::write(at("file"), "precious").unwrap();
    for name in ["proxy", "file"] {
        fs::write(at("second.toml"), text(&socket(name))).unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_redweir"))
            .args(["run", "-c", &socket("second.toml")])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("cannot listen on unix:") && said.contains("in use"), "{said}");
    }
    assert_eq!(fs::read(at("file")).unwrap(), b"precious");
    assert_eq!(conn.cmd(&["PING"]), "PONG");
    drop(conn);
    assert_eq!(proxy.stop(), Some(0));
    assert!(!at("proxy").exists(), "the socket goes with the proxy");
}
