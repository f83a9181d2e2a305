//! Rules for the order of a client's replies: whatever comes in whatever order and in whatever pieces, the client gets
//! each reply once, in the order of its commands. Held against a model that keeps every reply as a whole.

use redweir::proxy::downstream::queue::ReplyQueue;

use super::steps::Steps;

/// What is known of a command.
#[derive(Default)]
struct Reply {
    bytes: Vec<u8>,
    complete: bool,
}

/// The queue, and what it has to do.
#[derive(Default)]
struct Model {
    queue: ReplyQueue,
    /// Of all commands, ever.
    replies: Vec<Reply>,
    /// The oldest that is not answered.
    head: usize,
    /// How much of the head's reply has come out.
    begun: usize,
    /// What has come out, or is to be written next.
    due: Vec<u8>,
    /// How much of it is written.
    written: usize,
}

/// The steps that `input` stands for, one after another.
pub(crate) fn check(input: &[u8]) {
    let (mut steps, mut model) = (Steps::new(input), Model::default());
    while let Some(step) = steps.next() {
        match step % 8 {
            0 | 1 => model.open(),
            2 => model.push_raw(steps.text()),
            3 => model.write(steps.number()),
            4 => model.disturb(steps.number(), steps.text()),
            5 if step == 0xf5 => model.forget(),
            _ => {
                let (which, complete) = (steps.number(), step % 8 != 7);
                model.deliver(which, steps.text(), complete);
            }
        }
        model.compare();
    }
    model.finish();
}

impl Model {
    fn open(&mut self) {
        assert_eq!(self.queue.next(), self.replies.len() as u64);
        assert_eq!(self.queue.open(), self.replies.len() as u64);
        self.replies.push(Reply::default());
    }

    /// To one of the commands that are not answered.
    fn deliver(&mut self, which: usize, bytes: &[u8], complete: bool) {
        let open: Vec<usize> =
            (self.head..self.replies.len()).filter(|n| !self.replies[*n].complete).collect();
        let Some(seq) = open.get(which % open.len().max(1)).copied() else { return };
        self.replies[seq].bytes.extend_from_slice(bytes);
        self.replies[seq].complete = complete;
        let moves = self.queue.deliver(seq as u64, bytes, complete);
        assert_eq!(moves, seq == self.head && complete);
        self.settle();
    }

    /// To a command that is answered, or that there is not: nobody gets it.
    fn disturb(&mut self, which: usize, bytes: &[u8]) {
        let seq = if which.is_multiple_of(2) { which % (self.head + 1) } else { self.replies.len() + which };
        let answered = self.replies.get(seq).is_none_or(|reply| reply.complete);
        if answered {
            assert!(!self.queue.deliver(seq as u64, bytes, true));
        }
    }

    fn push_raw(&mut self, bytes: &[u8]) {
        self.queue.push_raw(bytes);
        self.due.extend_from_slice(bytes);
    }

    /// What has its turn comes out.
    fn settle(&mut self) {
        while let Some(reply) = self.replies.get(self.head) {
            self.due.extend_from_slice(&reply.bytes[self.begun..]);
            self.begun = reply.bytes.len();
            if !reply.complete {
                return;
            }
            (self.head, self.begun) = (self.head + 1, 0);
        }
    }

    fn write(&mut self, count: usize) {
        let count = count % (self.queue.output_len() + 1);
        self.queue.written(count);
        self.written += count;
    }

    fn forget(&mut self) {
        self.queue.forget();
        assert_eq!(self.queue.next(), self.queue.oldest());
        // What was outstanding never comes out, and the numbers go on from it.
        self.replies.truncate(self.head);
        (self.begun, self.written) = (0, self.due.len());
    }

    fn compare(&self) {
        assert_eq!(self.queue.output(), &self.due[self.written..]);
        assert_eq!(self.queue.oldest(), self.head as u64);
        assert_eq!(self.queue.outstanding(), self.replies.len() - self.head);
        let later = self.replies.iter().skip(self.head + 1);
        assert_eq!(self.queue.kept_len(), later.map(|reply| reply.bytes.len()).sum::<usize>());
    }

    /// Once all is answered nothing is kept, and everything has come out.
    fn finish(&mut self) {
        while self.head < self.replies.len() {
            self.deliver(self.replies.len() - 1, b"+last\r\n", true);
        }
        self.compare();
        assert_eq!((self.queue.kept_len(), self.queue.outstanding()), (0, 0));
    }
}
