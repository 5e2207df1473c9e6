//! Receipts of several devices as one request, as a writer commits in groups: while one request is under way the
//! receipts that come gather for the next, and no timer makes anybody wait. Each device hears its own outcome.
//!
//! Those of one device go as a request of its own kind, which every central knows.

use std::collections::VecDeque;

use carillon_world::{
    DeviceReceipts, RECEIPT_DEVICES_MAX, ReceiptKind, UPSTREAM_BYTES_MAX, UpstreamReply,
    UpstreamRequest,
};

/// Encoded bytes of one request, about; one device's receipts always go.
const BYTES_MAX: usize = UPSTREAM_BYTES_MAX / 4 * 3;

/// Receipts on their way, each with whoever waits for its outcome.
#[derive(Debug)]
pub struct Gather<W> {
    waiting: VecDeque<(DeviceReceipts, W)>,
    /// Whom the request under way concerns, in its order. Empty if there is none.
    under_way: Vec<W>,
}

impl<W> Default for Gather<W> {
    fn default() -> Gather<W> {
        Gather { waiting: VecDeque::new(), under_way: Vec::new() }
    }
}

impl<W> Gather<W> {
    /// Devices that wait, with those whose receipts are under way.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.under_way.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn push(&mut self, receipts: DeviceReceipts, waiter: W) {
        self.waiting.push_back((receipts, waiter));
    }

    /// The next request, if none is under way.
    pub fn poll_request(&mut self) -> Option<UpstreamRequest> {
        if !self.under_way.is_empty() {
            return None;
        }
        let (mut devices, mut bytes) = (Vec::new(), 0);
        while devices.len() < RECEIPT_DEVICES_MAX
            && let Some((next, _)) = self.waiting.front()
        {
            bytes += encoded(next);
            if bytes > BYTES_MAX && !devices.is_empty() {
                break;
            }
            let (receipts, waiter) = self.waiting.pop_front().expect("it was looked at");
            devices.push(receipts);
            self.under_way.push(waiter);
        }
        match devices.len() {
            0 => None,
            1 => devices.pop().map(|DeviceReceipts { app, device, generation, receipts }| {
                UpstreamRequest::Receipts { app, device, generation, receipts }
            }),
            _ => Some(UpstreamRequest::ReceiptBatch { devices }),
        }
    }

    /// Central's reply to the request under way: to each device its own.
    pub fn handle_reply(&mut self, reply: &UpstreamReply) -> Vec<(W, UpstreamReply)> {
        let waiters = std::mem::take(&mut self.under_way);
        let outcomes = match reply {
            UpstreamReply::Receipts { committed, outcomes } => {
                Some((*committed, outcomes)).filter(|(_, all)| all.len() == waiters.len())
            }
            _ => None,
        };
        let own = |index: usize| match outcomes {
            None => reply.clone(),
            Some((committed, outcomes)) => match &outcomes[index] {
                None => UpstreamReply::Written { committed },
                Some(problem) => UpstreamReply::Refused { problem: problem.clone() },
            },
        };
        waiters.into_iter().enumerate().map(|(index, waiter)| (waiter, own(index))).collect()
    }

    /// No reply will come to the request under way. Gives whom it concerned.
    pub fn handle_lost(&mut self) -> Vec<W> {
        std::mem::take(&mut self.under_way)
    }

    /// No reply will come to anybody.
    pub fn clear(&mut self) {
        self.waiting.clear();
        self.under_way.clear();
    }
}

/// How large a device's receipts are in a request, or more.
fn encoded(device: &DeviceReceipts) -> usize {
    let action = |kind: &ReceiptKind| match kind {
        ReceiptKind::Action(action) => action.len() + 8,
        _ => 0,
    };
    let receipts = device.receipts.iter().map(|receipt| 48 + action(&receipt.kind));
    48 + receipts.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use carillon_world::{
        AppId, DeviceId, Epoch, MessageId, Millis, Position, Problem, Receipt, Seq, ShardId,
    };

    use super::*;

    fn at(seq: u64) -> Position {
        let epoch = Epoch { number: 1, tag: 1 };
        Position { shard: ShardId::FIRST, epoch, seq: Seq::new(seq) }
    }

    fn of(device: u64, receipts: u64) -> DeviceReceipts {
        let receipt = |id| Receipt {
            id,
            message: MessageId::new(u64::MAX),
            kind: ReceiptKind::Action("x".repeat(64)),
            at: Millis(u64::MAX),
        };
        DeviceReceipts {
            app: AppId::new(1),
            device: DeviceId::new(device),
            generation: Seq::new(1),
            receipts: (0..receipts).map(receipt).collect(),
        }
    }

    fn refusal(status: u16) -> Problem {
        let (code, title, detail) = Default::default();
        Problem { status, code, title, detail, retry_after: None, extra: None }
    }

    #[test]
    fn what_comes_while_a_request_is_under_way_goes_as_one_and_each_hears_its_own_outcome() {
        let mut gather = Gather::default();
        gather.push(of(1, 1), 'a');
        assert!(matches!(gather.poll_request(), Some(UpstreamRequest::Receipts { .. })));
        for (device, waiter) in [(2, 'b'), (3, 'c'), (4, 'd')] {
            gather.push(of(device, 2), waiter);
            assert_eq!(gather.poll_request(), None, "one at a time");
        }
        let written = |seq| UpstreamReply::Written { committed: at(seq) };
        assert_eq!(gather.handle_reply(&written(5)), [('a', written(5))]);
        let Some(UpstreamRequest::ReceiptBatch { devices }) = gather.poll_request() else {
            panic!("a batch")
        };
        assert_eq!(devices, [of(2, 2), of(3, 2), of(4, 2)]);
        let refused = UpstreamReply::Refused { problem: refusal(401) };
        let outcomes = vec![None, Some(refusal(401)), None];
        let reply = UpstreamReply::Receipts { committed: at(9), outcomes };
        let expected = [('b', written(9)), ('c', refused), ('d', written(9))];
        assert_eq!(gather.handle_reply(&reply), expected);
        assert!(gather.is_empty());
    }

    #[test]
    fn a_batch_that_is_refused_or_lost_is_so_for_all_of_it() {
        let mut gather = Gather::default();
        for waiter in ['a', 'b'] {
            gather.push(of(1, 1), waiter);
        }
        assert!(gather.poll_request().is_some());
        let refused = UpstreamReply::Refused { problem: refusal(503) };
        let told = gather.handle_reply(&refused);
        assert_eq!(told, [('a', refused.clone()), ('b', refused)]);
        gather.push(of(1, 1), 'c');
        assert!(gather.poll_request().is_some());
        gather.push(of(1, 1), 'd');
        assert_eq!(gather.handle_lost(), ['c']);
        assert!(gather.poll_request().is_some(), "the others go");
        gather.clear();
        assert!(gather.is_empty());
    }

    #[test]
    fn a_request_is_bounded_in_devices_and_bytes() {
        let mut gather = Gather::default();
        (0..RECEIPT_DEVICES_MAX as u64 + 1).for_each(|n| gather.push(of(n, 0), n));
        let all = (0..40).map(|n| of(n, 200));
        all.for_each(|receipts| gather.push(receipts, 0));
        let (mut sizes, mut largest) = (Vec::new(), 0);
        while let Some(request) = gather.poll_request() {
            largest = largest.max(request.encode().len());
            sizes.push(gather.handle_lost().len());
        }
        assert_eq!(sizes[0], RECEIPT_DEVICES_MAX);
        assert_eq!(sizes.iter().sum::<usize>(), RECEIPT_DEVICES_MAX + 41);
        assert!(largest <= UPSTREAM_BYTES_MAX, "{largest}");
    }
}
