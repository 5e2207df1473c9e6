//! What goes wrong, beside what the network does to single requests: links are cut and stall, processes are killed,
//! stores refuse.

use crate::sim::{Event, Sim};

impl Sim {
    /// One trouble, and the next soon.
    pub(crate) fn trouble(&mut self) {
        if !self.faults {
            return;
        }
        let pause = self.random.within(200, 3_500);
        self.after(pause, Event::Trouble);
        let edge = self.random.index(self.edges.len());
        let client = self.random.index(self.clients.len());
        let link = self.edges[edge].link;
        match (self.random.below(100), link) {
            (0..25, Some(link)) => self.cut(link),
            (25..47, Some(link)) => {
                let millis = self.random.within(500, 9_000);
                self.stall(link, millis);
            }
            // Longer than silence is borne.
            (47..52, Some(link)) => self.stall(link, 25_000),
            (52..64, _) => self.crash_edge(edge),
            (64..73, _) => self.crash_central(),
            (73..80, _) => {
                self.trace.count("store outages");
                self.store.down_until = self.now + self.random.within(200, 6_000);
            }
            (80..90, _) => self.restart_client(client),
            (90..100, _) => self.fail_client_store(client),
            _ => {}
        }
    }
}
