//! How many commands of a client may be on their way at once.
//!
//! A server makes every reply that it is asked for, whether anybody takes it or not, and what it has made it holds: thirty
//! clients that ask for 300 values of 1 MiB each and read nothing fill its memory with nine gigabytes. So a client of which
//! nothing is known yet has few commands on their way, and one more with each small reply that has come, as TCP begins.
//! Once replies are large no more are asked for than [`limits::CLIENT_WINDOW`] bytes hold of them, and one at least.

use crate::mutant;
use crate::net::runtime::limits;

/// The window of one client, in commands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    commands: usize,
    /// What a reply takes, in bytes, by the latest ones; 0 as long as they are small.
    reply: usize,
    /// Bytes that have come of a reply that is not complete.
    arriving: usize,
}

impl Default for Window {
    fn default() -> Self {
        Self { commands: limits::CLIENT_WINDOW_FIRST, reply: 0, arriving: 0 }
    }
}

impl Window {
    /// Whether one more command may follow so many that are not answered.
    #[inline]
    pub(crate) fn is_open(&self, outstanding: usize) -> bool {
        outstanding < self.commands || mutant::is("window-wide-open")
    }

    /// A small reply has come, while [`Self::is_plain`].
    #[inline]
    pub(crate) fn grows(&mut self) {
        self.commands += usize::from(self.commands < limits::CLIENT_PENDING);
    }

    /// Whether replies have been small of late.
    pub(crate) const fn is_plain(&self) -> bool {
        self.reply == 0 && self.arriving == 0
    }

    /// So many bytes of a reply have come, and with them its end, if it is `complete`.
    pub(crate) fn weigh(&mut self, bytes: usize, complete: bool) {
        self.arriving += bytes;
        // At once when they get larger, slowly when they get smaller.
        let length = self.arriving;
        self.reply = length.max((self.reply * 7 + length) / 8);
        if complete {
            self.arriving = 0;
            if self.reply <= limits::PLAIN_REPLY {
                self.reply = 0;
            }
        }
        let most = if self.reply == 0 { limits::CLIENT_PENDING } else { self.within(limits::CLIENT_WINDOW) };
        self.commands = (self.commands + usize::from(complete)).min(most);
    }

    /// How many replies so many bytes hold.
    pub(crate) fn within(&self, bytes: usize) -> usize {
        (bytes / self.reply.max(1)).clamp(1, limits::CLIENT_PENDING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(window: &mut Window, count: usize, bytes: usize) {
        for _ in 0..count {
            if bytes <= limits::PLAIN_REPLY && window.is_plain() {
                window.grows();
            } else {
                window.weigh(bytes, true);
            }
        }
    }

    #[test]
    fn it_opens_with_small_replies_to_its_end() {
        let mut window = Window::default();
        assert!(
            window.is_open(limits::CLIENT_WINDOW_FIRST - 1) && !window.is_open(limits::CLIENT_WINDOW_FIRST)
        );
        answered(&mut window, 10, 100);
        assert!(window.is_open(limits::CLIENT_WINDOW_FIRST + 9));
        answered(&mut window, 10_000, 5);
        assert!(window.is_open(limits::CLIENT_PENDING - 1) && !window.is_open(limits::CLIENT_PENDING));
    }

    #[test]
    fn it_closes_with_the_beginning_of_a_large_reply_and_one_may_always_follow() {
        let mut window = Window::default();
        answered(&mut window, 1000, 5);
        window.weigh(64 << 10, false);
        let most = limits::CLIENT_WINDOW >> 16;
        assert!(window.is_open(most - 1) && !window.is_open(most), "it is no shorter than what has come");
        (0..1000).for_each(|_| window.weigh(64 << 10, false));
        assert!(window.is_open(0) && !window.is_open(1));
        window.weigh(2, true);
        assert!(window.is_open(0) && !window.is_open(1));
        answered(&mut window, 1000, 100);
        assert!(window.is_open(900), "what is over is forgotten");
    }

    #[test]
    fn replies_of_a_size_are_as_many_as_fit() {
        let mut window = Window::default();
        answered(&mut window, 1000, 16 << 10);
        let most = limits::CLIENT_WINDOW >> 14;
        assert!(window.is_open(most - 1) && !window.is_open(most));
    }
}
