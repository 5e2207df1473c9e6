//! What a captured push says, in clear: Web Push bodies are opened by npm's `http_ece`, which shares no code with us.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use carillon_tests::providers::Captured;
use serde_json::{Value, json};

use crate::bench::Channel;

/// The JSON that the device, or Google on its behalf, gets.
pub(crate) fn payload(channel: Channel, captured: &Captured) -> Value {
    let bytes = match channel {
        Channel::Apns | Channel::Fcm => captured.bytes(),
        Channel::WebPush => {
            let mut told = captured.known.clone();
            told["body"] = json!(URL_SAFE_NO_PAD.encode(captured.bytes()));
            open(&told)
        }
    };
    serde_json::from_slice(&bytes).expect("a push is JSON")
}

fn open(told: &Value) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("web-push");
    assert!(
        folder.join("node_modules/http_ece").is_dir(),
        "http_ece is not installed: run scripts/install-test-deps.sh"
    );
    let mut node = Command::new("node")
        .arg(folder.join("decrypt.mjs"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("node is installed by scripts/install-test-deps.sh");
    let mut input = node.stdin.take().expect("it is piped");
    input.write_all(told.to_string().as_bytes()).expect("node reads");
    drop(input);
    let output = node.wait_with_output().expect("node ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
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
