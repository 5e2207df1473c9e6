//! The admin's calls: lost, late and repeated as devices' requests are. What is acknowledged has to be durable (P3).

use carillon_central::core::write::{Answer, Reply, Write};
use carillon_world::MessageId;

use crate::sim::{Event, Sim};

/// A call of the admin that is not answered.
#[derive(Clone, Debug)]
pub(crate) struct AdminCall {
    pub(crate) write: Write,
    /// The number of the body, for a create.
    pub(crate) created: Option<u64>,
    pub(crate) tries: u32,
}

impl Sim {
    pub(crate) fn ask(&mut self, write: Write) {
        self.call(AdminCall { write, created: None, tries: 0 });
    }

    pub(crate) fn call(&mut self, call: AdminCall) {
        self.call_after(0, call);
    }

    pub(crate) fn call_after(&mut self, millis: u64, call: AdminCall) {
        let number = self.draw_number();
        let delay = if self.faults { self.random.within(1, 60) } else { 1 };
        self.admin.insert(number, call);
        self.after(millis + delay, Event::AdminAsks { number });
    }

    pub(crate) fn admin_asks(&mut self, number: u64) {
        if self.faults && self.random.percent(2) {
            return self.admin_hears_nothing(number);
        }
        let write = self.admin[&number].write.clone();
        self.admin_writes(number, write);
    }

    /// The admin does not know what became of the call: with a key it is repeated, as another request would be.
    pub(crate) fn admin_hears_nothing(&mut self, number: u64) {
        let Some(mut call) = self.admin.remove(&number) else { return };
        let Write::CreateMessage(create) = &mut call.write else { return };
        create.id = MessageId::new(self.random.draw());
        call.tries += 1;
        assert!(call.tries < 200, "a create is never answered");
        let number = self.draw_number();
        self.admin.insert(number, call);
        let pause = self.random.within(100, 2_000);
        self.trace.count("repeated creates");
        self.after(pause, Event::AdminAsks { number });
    }

    pub(crate) fn admin_hears(&mut self, number: u64, answer: Answer) {
        if self.faults && self.random.percent(3) {
            return self.admin_hears_nothing(number);
        }
        let Some(call) = self.admin.get(&number) else { return };
        match answer.result {
            Err(problem) if problem.status == 503 && call.created.is_some() => {
                return self.admin_hears_nothing(number);
            }
            Err(problem) => {
                let ours = problem.status >= 500 && problem.status != 503;
                assert!(!ours, "central fails on {:?}: {problem:?}", call.write);
                self.trace.count("refused writes");
            }
            Ok(Reply::Created(created)) => {
                let body = call.created.expect("it was a create");
                let revisions = self.oracle.message(created.id.get());
                let (_, first) = &revisions.expect("P3: an acknowledged create is durable")[0];
                assert_eq!(first.number, 1);
                self.acknowledged.insert((created.id.get(), body));
            }
            Ok(Reply::Message { row, .. }) => {
                let revisions = self.oracle.message(row.id.get()).expect("it was created");
                let known = revisions.iter().any(|(_, r)| {
                    (r.number, r.state) == (row.revision, row.state)
                        && r.to.text(None) == *row.to
                        && r.tag == row.variants[0].tag.get()
                });
                assert!(known, "P3: the acknowledged edit of {} is durable", row.id);
            }
            Ok(Reply::Audience { row, .. }) => {
                let said = self.oracle.audiences_at(row.from.get());
                let said =
                    said.get(&row.id.get()).expect("P3: an acknowledged audience is durable");
                assert_eq!(said.text(None), *row.expression, "P3: the audience {}", row.id);
                self.trace.count("acknowledged audiences");
            }
            Ok(_) => self.trace.count("acknowledged"),
        }
        self.admin.remove(&number);
    }
}
