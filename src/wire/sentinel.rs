//! What a sentinel answers, as words (`sentinel.c`, `addReplySentinelRedisInstance`): one primary, or the replicas of one, each
//! as names and values in turn. Redis adds to them with every version: what is not known is passed over.

use redis_protocol::resp2::types::BytesFrame;

use super::info::Info;
use crate::core::address::Address;
use crate::core::nodes::sentinel::Listed;

/// Replicas of one primary that are looked at, at most.
pub const MOST_LISTED: usize = 1024;

/// Why an answer says nothing. The sentinel is at fault, or something that poses as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SentinelError {
    /// It is no list of names and values.
    #[error("the answer is no list of names and values")]
    NotAList,
    /// A value is missing, or none that it can be.
    #[error("the answer lacks `{0}`")]
    Lacks(&'static str),
    /// More than [`MOST_LISTED`].
    #[error("there are more than {MOST_LISTED} replicas")]
    TooMany,
}

/// What `SENTINEL MASTER` answers: the number of the configuration (`config-epoch`), and where the primary is.
pub fn primary(answer: &BytesFrame) -> Result<(u64, Address), SentinelError> {
    let fields = Fields::of(answer)?;
    let epoch = fields.get("config-epoch").and_then(|text| text.parse().ok());
    let epoch = epoch.ok_or(SentinelError::Lacks("config-epoch"))?;
    Ok((epoch, fields.address("ip", "port").ok_or(SentinelError::Lacks("ip"))?))
}

/// What `SENTINEL GET-MASTER-ADDR-BY-NAME` answers: where the primary is, or, in the middle of a failover, will be.
pub fn address(answer: &BytesFrame) -> Result<Address, SentinelError> {
    let BytesFrame::Array(parts) = answer else { return Err(SentinelError::NotAList) };
    let [host, port] = parts.as_slice() else { return Err(SentinelError::NotAList) };
    text(host).zip(text(port)).and_then(|(host, port)| at(host, port)).ok_or(SentinelError::Lacks("ip"))
}

/// What `SENTINEL REPLICAS` answers.
pub fn replicas(answer: &BytesFrame) -> Result<Vec<Listed>, SentinelError> {
    let BytesFrame::Array(lines) = answer else { return Err(SentinelError::NotAList) };
    if lines.len() > MOST_LISTED {
        return Err(SentinelError::TooMany);
    }
    lines.iter().map(replica).collect()
}

fn replica(line: &BytesFrame) -> Result<Listed, SentinelError> {
    let fields = Fields::of(line)?;
    let flags = fields.get("flags").ok_or(SentinelError::Lacks("flags"))?;
    let has = |names: &[&str]| flags.split(',').any(|flag| names.contains(&flag));
    let master = fields.get("master-host").filter(|host| !matches!(*host, "" | "?"));
    let master_port = fields.get("master-port").and_then(|port| port.parse().ok());
    Ok(Listed {
        address: fields.address("ip", "port"),
        down: has(&["s_down", "o_down"]),
        disconnected: has(&["disconnected"]),
        unannounced: matches!(fields.get("replica-announced"), Some("0" | "no")),
        master: master.map(str::to_owned).zip(master_port.filter(|port| *port != 0)),
    })
}

/// Whether `INFO` of a sentinel says that it is in TILT: its clock has leapt, or it was stopped for a while.
pub fn is_in_tilt(info: &[u8]) -> bool {
    info.split(|&byte| byte == b'\n').any(|line| line.trim_ascii_end() == b"sentinel_tilt:1")
}

/// Whether a message on the channel `+switch-master` is about the primary called `name`. It says the name, where the primary was,
/// and where it is now.
pub fn is_switch_of(message: &BytesFrame, name: &str) -> bool {
    let BytesFrame::Array(parts) = message else { return false };
    let [kind, _, text] = parts.as_slice() else { return false };
    self::text(kind) == Some("message")
        && self::text(text).is_some_and(|text| text.split(' ').next() == Some(name))
}

/// Names and values in turn.
struct Fields<'a>(&'a [BytesFrame]);

impl<'a> Fields<'a> {
    fn of(frame: &'a BytesFrame) -> Result<Self, SentinelError> {
        match frame {
            BytesFrame::Array(items) if items.len().is_multiple_of(2) => Ok(Self(items)),
            _ => Err(SentinelError::NotAList),
        }
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        let pair = self.0.chunks_exact(2).find(|pair| text(&pair[0]) == Some(name))?;
        text(&pair[1])
    }

    /// `None`: nobody can be reached there.
    fn address(&self, host: &str, port: &str) -> Option<Address> {
        at(self.get(host)?, self.get(port)?)
    }
}

fn at(host: &str, port: &str) -> Option<Address> {
    Address::announced(host, port.parse().ok()?)
}

fn text(frame: &BytesFrame) -> Option<&str> {
    let (BytesFrame::BulkString(bytes) | BytesFrame::SimpleString(bytes)) = frame else { return None };
    std::str::from_utf8(bytes).ok().filter(|text| text.len() <= Info::MOST_TEXT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> BytesFrame {
        let word = |word: &str| BytesFrame::BulkString(word.to_owned().into());
        BytesFrame::Array(line.split(' ').map(word).collect())
    }

    #[test]
    fn a_primary_is_where_it_is_said_to_be() {
        let told = |line| primary(&words(line));
        let line = "name m ip 10.0.0.5 port 6379 runid abc flags master config-epoch 7 quorum 2";
        assert_eq!(told(line), Ok((7, Address::tcp("10.0.0.5", 6379))));
        assert_eq!(told("ip ::1 port 1 config-epoch 0"), Ok((0, Address::tcp("::1", 1))));
        assert_eq!(
            told("ip redis-1.example port 1 config-epoch 0").unwrap().1.to_string(),
            "redis-1.example:1"
        );
        assert_eq!(told("ip a port 1 config-epoch -1"), Err(SentinelError::Lacks("config-epoch")));
        assert_eq!(told("ip a port 0 config-epoch 1"), Err(SentinelError::Lacks("ip")));
        assert_eq!(told("ip unix:/a port 1 config-epoch 1"), Err(SentinelError::Lacks("ip")));
        assert_eq!(told("ip a port"), Err(SentinelError::NotAList));
        assert_eq!(primary(&BytesFrame::Null), Err(SentinelError::NotAList));
    }

    #[test]
    fn a_replica_is_as_its_flags_say() {
        let told = |line: &str| replicas(&BytesFrame::Array(vec![words(line)])).map(|mut all| all.remove(0));
        // As Redis 7.0 answers, in part.
        let line = "name 127.0.0.1:6381 ip 127.0.0.1 port 6381 runid 9f flags slave link-pending-commands 0 \
            master-link-status ok master-host 127.0.0.1 master-port 6379 slave-priority 100 replica-announced 1";
        let found = told(line).unwrap();
        assert_eq!(found.address, Some(Address::tcp("127.0.0.1", 6381)));
        assert_eq!(found.master, Some(("127.0.0.1".to_owned(), 6379)));
        assert!(!found.down && !found.unannounced);
        for (flags, down, disconnected) in [
            ("s_down,slave", true, false),
            ("slave,disconnected", false, true),
            ("s_down,o_down,slave,disconnected", true, true),
        ] {
            let found = told(&line.replace("flags slave", &format!("flags {flags}"))).unwrap();
            assert_eq!((found.down, found.disconnected), (down, disconnected), "{flags}");
        }
        assert!(told(&line.replace("announced 1", "announced 0")).unwrap().unannounced);
        assert_eq!(told(&line.replace("port 6381", "port 0")).unwrap().address, None);
        assert_eq!(told(&line.replace("master-host 127.0.0.1", "master-host ?")).unwrap().master, None);
        assert_eq!(told("ip a port 1"), Err(SentinelError::Lacks("flags")));
        assert_eq!(
            replicas(&BytesFrame::Array(vec![BytesFrame::Null; MOST_LISTED + 1])),
            Err(SentinelError::TooMany)
        );
    }

    #[test]
    fn tilt_and_switches_are_heard() {
        assert!(is_in_tilt(b"# Sentinel\r\nsentinel_masters:1\r\nsentinel_tilt:1\r\n"));
        assert!(!is_in_tilt(b"sentinel_tilt:0\r\nsentinel_tilt_since_seconds:1\r\n"));
        let message = |text: &str| {
            let part = |part: &str| BytesFrame::BulkString(part.to_owned().into());
            BytesFrame::Array(vec![part("message"), part("+switch-master"), part(text)])
        };
        assert!(is_switch_of(&message("m 10.0.0.1 1 10.0.0.2 2"), "m"));
        assert!(!is_switch_of(&message("mm 10.0.0.1 1 10.0.0.2 2"), "m"));
        assert!(!is_switch_of(&words("subscribe +switch-master m"), "m"));
    }
}
