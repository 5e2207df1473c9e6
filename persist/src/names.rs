//! The words by which tables name the variants of an enum.

use carillon_world::{Environment, MessageState, Priority, PushChannel, SetBy};

use crate::{JobState, RunKind};

use crate::CallbackState;
use crate::CountSpan;

/// Both ways in one table, so that they cannot disagree.
macro_rules! named {
    ($($type:ty { $($variant:ident $name:literal)* })*) => {$(
        impl Named for $type {
            fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            fn named(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }
        }
    )*};
}

pub(crate) trait Named: Copy {
    fn name(self) -> &'static str;
    fn named(name: &str) -> Option<Self>;
}

named! {
    Environment { Sandbox "sandbox" Production "production" }
    SetBy { Server "server" Device "device" Both "both" }
    Priority { Low "low" Normal "normal" High "high" }
    PushChannel { Apns "apns" Fcm "fcm" WebPush "web_push" }
    RunKind { Send "send" Withdraw "withdraw" }
    JobState { Sending "sending" Stopping "stopping" Done "done" }
    MessageState { Scheduled "scheduled" Active "active" Expired "expired" Recalled "recalled" }
    CallbackState { Active "active" Admin "admin" Failing "failing" Gone "gone" }
    CountSpan { Total "total" Minute "minute" Hour "hour" Day "day" }
}
