//! What a walk asks of devices beside the world.

use std::sync::Arc;

use carillon_world::{AppId, DeviceId, Seq};

use super::walk::Books;
use crate::core::tally::Tally;

/// Of one app, as durable.
#[derive(Debug)]
pub struct AppBooks {
    tally: Arc<Tally>,
    app: AppId,
}

impl AppBooks {
    pub fn new(tally: Arc<Tally>, app: AppId) -> AppBooks {
        AppBooks { tally, app }
    }
}

impl Books for AppBooks {
    fn held(&self, device: DeviceId) -> Option<Seq> {
        self.tally.held(self.app, device)
    }

    fn is_capped(&self, _device: DeviceId) -> bool {
        false
    }
}
