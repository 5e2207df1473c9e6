//! `carillon explain`: asks central why a device is a recipient, or is none.

use std::time::Duration;

use bytes::Bytes;
use carillon_world::{AppId, DeviceId, MessageId};
use http_body_util::{BodyExt as _, Full};
use serde_json::json;

use crate::failure::{Failure, say};
use crate::remote::{Remote, RemoteError};

/// A large expression for a device with much to look at takes central milliseconds; others may come before.
const PATIENCE: Duration = Duration::from_secs(60);

/// What `carillon explain` can be told.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// The app.
    #[arg(long, value_name = "ID")]
    app: AppId,
    /// The device.
    #[arg(long, value_name = "ID")]
    device: DeviceId,
    /// The expression to explain.
    #[arg(long, value_name = "EXPRESSION", required_unless_present = "message")]
    to: Option<String>,
    /// The message to explain, in place of an expression.
    #[arg(long, value_name = "ID", conflicts_with = "to")]
    message: Option<MessageId>,
    /// Print the answer's JSON in place of its text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    central: Remote,
}

/// Asks and prints.
///
/// # Errors
/// [`Failure::Remote`] if no explanation came, [`Failure::Output`] if it cannot be printed.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    let mut text = runtime.block_on(ask(options))?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    say(&text)
}

async fn ask(options: &Options) -> Result<String, RemoteError> {
    let question = json!({"device": options.device, "to": options.to, "message": options.message});
    let path = format!("/v1/apps/{}/audience:explain", options.app);
    let accept = if options.json { "application/json" } else { "text/plain" };
    let body = Full::new(Bytes::from(question.to_string()));
    let request = options.central.post(&path, "application/json", accept, body)?;
    let asked = async {
        let answer = options.central.send(request).await?;
        Ok::<_, RemoteError>(answer.into_body().collect().await?.to_bytes())
    };
    let answer = tokio::time::timeout(PATIENCE, asked).await;
    let answer = answer.map_err(|_| RemoteError::Silent(PATIENCE))??;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
