//! Message bodies (RFC 8188, RFC 8291) opened by npm's `http_ece`, which shares no code with Carillon.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// Opens what a simulator knows of a subscription, with the `body` in base64url.
///
/// # Errors
/// What the library says, if the body is not whole.
///
/// # Panics
/// If Node or the library is not installed.
pub fn open_aes128gcm(told: &Value) -> Result<Vec<u8>, String> {
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
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
