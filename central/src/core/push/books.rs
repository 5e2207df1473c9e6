//! What a walk asks of devices beside the world.

use std::sync::Arc;

use carillon_world::{AppId, DeviceId, FrequencyCap, Millis, Seq};

use super::caps::Caps;
use super::walk::Books;
use crate::core::tally::Tally;

/// Of one app, as durable.
#[derive(Debug)]
pub struct AppBooks {
    tally: Arc<Tally>,
    caps: Arc<Caps>,
    app: AppId,
    /// What the app allows, and by when it is asked.
    cap: Option<FrequencyCap>,
    now: Millis,
}

impl AppBooks {
    pub fn new(
        tally: Arc<Tally>,
        caps: Arc<Caps>,
        app: AppId,
        cap: Option<FrequencyCap>,
        now: Millis,
    ) -> AppBooks {
        AppBooks { tally, caps, app, cap, now }
    }
}

impl Books for AppBooks {
    fn held(&self, device: DeviceId) -> Option<Seq> {
        self.tally.held(self.app, device)
    }

    fn is_capped(&self, device: DeviceId) -> bool {
        self.cap.is_some_and(|cap| self.caps.is_capped(self.app, device, cap, self.now))
    }
}
