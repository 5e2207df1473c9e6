//! What a captured push says, in clear: Web Push bodies are opened by npm's `http_ece`, which shares no code with us.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use carillon_tests::providers::{Captured, open_aes128gcm};
use serde_json::{Value, json};

use crate::bench::Channel;

/// The JSON that the device, or Google on its behalf, gets.
pub(crate) fn payload(channel: Channel, captured: &Captured) -> Value {
    let bytes = match channel {
        Channel::Apns | Channel::Fcm => captured.bytes(),
        Channel::WebPush => {
            let mut told = captured.known.clone();
            told["body"] = json!(URL_SAFE_NO_PAD.encode(captured.bytes()));
            open_aes128gcm(&told).expect("the library opens it")
        }
    };
    serde_json::from_slice(&bytes).expect("a push is JSON")
}

/// All that went over the wire but the credential, and the payload in clear.
pub(crate) fn everything(channel: Channel, captured: &Captured) -> String {
    let mut all =
        format!("{}\n{}", String::from_utf8_lossy(&captured.bytes()), payload(channel, captured));
    for (name, value) in &captured.headers {
        if name != "authorization" {
            all.push_str(&format!("\n{name}: {value}"));
        }
    }
    all
}
