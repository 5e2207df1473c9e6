//! The simulators of push providers are judged here: that each lets a right request through, and catches a breach of
//! each rule that its provider publishes. Requests come from a bare HTTP/2 client over TLS.

mod apns;
mod client;
mod faults;
mod fcm;
mod web_push;
