//! What an app's pushes need and may do: credentials, which go in and never come out, rates and caps.

use std::collections::BTreeMap;

use axum::extract::State;
use carillon_world::{App, FrequencyCap, PushChannel, PushSettings, SealedCredential};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::answer::{Answered, ProblemBody, Refusal, json, unexpected, written};
use super::extract::{Caller, Params, RawBody, nullable};
use super::{Api, app_of};
use crate::core::auth::Action;
use crate::core::channel::credential::{Credential, SEAL_NONCE_LEN};
use crate::core::push::jobs::Standing;
use crate::core::write::{Reply, Write};
use crate::core::{problem, render};
use crate::shell::random;

/// How devices that are not here hear of a message.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PolicyForm {
    /// `wake` says nothing but that there is something, and the device polls; `alert` shows a text.
    kind: PushKindName,
    /// The words of an alert, for devices that no locale has better ones for.
    text: Option<TextForm>,
    /// The words by locale, such as `sv` or `sv-se`: the longest that the device's attribute `locale` begins with.
    locales: Option<BTreeMap<String, TextForm>>,
    /// Seconds over which the pushes are spread evenly, at most a day; not said or 0: as fast as may be.
    over_s: Option<u32>,
    quiet_hours: Option<QuietForm>,
    /// The app's frequency cap neither holds these pushes back nor counts them.
    ignore_cap: Option<bool>,
    overrides: Option<OverridesForm>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "it stands for another crate's type in the document")]
pub(crate) enum PushKindName {
    Wake,
    Alert,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TextForm {
    title: String,
    body: String,
}

/// When a device is left in peace, by its own time.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QuietForm {
    /// As `22:00`; included. Over midnight if it is after `to`.
    from: String,
    /// As `08:00`; not included.
    to: String,
    /// The attribute that holds the device's offset from UTC in minutes, `utc_offset` if it is not said.
    offset: Option<String>,
    /// `hold`: the push comes when they are over. `skip`: it does not come.
    then: QuietName,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "it stands for another crate's type in the document")]
pub(crate) enum QuietName {
    Hold,
    Skip,
}

/// Objects that are merged into what a provider gets.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OverridesForm {
    /// FCM's `android`.
    #[schema(value_type = Option<Object>)]
    android: Option<serde_json::Value>,
    /// Of APNs' payload, and FCM's `apns.payload`.
    #[schema(value_type = Option<Object>)]
    apns: Option<serde_json::Value>,
    /// Of a Web Push payload, and FCM's `webpush`.
    #[schema(value_type = Option<Object>)]
    webpush: Option<serde_json::Value>,
}

/// How the pushes of a message stand.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StandingName {
    /// It has none, or it is not active yet.
    None,
    Sending,
    Done,
    /// It was recalled, and requests may still be in flight.
    Stopping,
    /// It was recalled, and nothing of it is handed to a provider any more.
    Stopped,
}

impl From<Standing> for StandingName {
    fn from(standing: Standing) -> StandingName {
        match standing {
            Standing::None => StandingName::None,
            Standing::Sending => StandingName::Sending,
            Standing::Done => StandingName::Done,
            Standing::Stopping => StandingName::Stopping,
            Standing::Stopped => StandingName::Stopped,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PushBody {
    /// Pushes a second over all channels; `null`: as many as providers take.
    rate: Option<u32>,
    #[schema(value_type = Option<CapForm>)]
    cap: Option<FrequencyCap>,
    /// By channel: `apns`, `fcm`, `web_push`.
    credentials: BTreeMap<&'static str, CredentialBody>,
}

/// How many pushes a device gets at most in any stretch of `period_s` seconds.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CapForm {
    /// 1 to 100.
    pushes: u32,
    /// 60 to 2,592,000.
    period_s: u32,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CredentialBody {
    /// Whose it is and which key: team, key and topic; project and account; the public key that browsers subscribe
    /// with.
    about: String,
    set_at: String,
}

/// What it does not name stays; `null` takes a limit away.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PushPatch {
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<u32>)]
    rate: Option<Option<u32>>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<CapForm>)]
    cap: Option<Option<FrequencyCap>>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CredentialForm {
    /// APNs: `team_id`, `key_id`, `topic` and `key`, the text of the .p8 file. FCM: the service account's JSON. Web Push:
    /// `subject`, a mailto: or https: address, and `private_key`, the VAPID key as base64url or PEM.
    #[schema(value_type = serde_json::Value)]
    credential: Box<RawValue>,
}

const CHANNELS: [(&str, PushChannel); 3] =
    [("apns", PushChannel::Apns), ("fcm", PushChannel::Fcm), ("web_push", PushChannel::WebPush)];

fn channel(name: &str) -> Result<PushChannel, Refusal> {
    let named = CHANNELS.iter().find(|(of, _)| *of == name);
    Ok(named.ok_or_else(|| problem::not_found("channel"))?.1)
}

fn body(app: &App) -> PushBody {
    let push = app.row().push.as_deref().cloned().unwrap_or_default();
    let credential = |(name, channel): &(&'static str, PushChannel)| {
        let of = push.credentials.get(channel)?;
        let body = CredentialBody { about: of.about.to_string(), set_at: render::time(of.set_at) };
        Some((*name, body))
    };
    PushBody {
        rate: push.settings.rate,
        cap: push.settings.cap,
        credentials: CHANNELS.iter().filter_map(credential).collect(),
    }
}

async fn write(api: &Api, write: Write) -> Answered {
    let (reply, at) = api.write(write).await?;
    let Reply::App(row) = reply else { return Err(unexpected()) };
    Ok(written(StatusCode::OK, at, &body(app_of(&api.world(), row.id)?)))
}

/// What an app's pushes need and may do. Of a credential it tells whose it is, never what it is.
#[utoipa::path(get, path = "/v1/apps/{app}/push", tag = "push", params(("app" = String, Path)), responses(
    (status = 200, body = PushBody),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn get(
    State(api): State<Api>,
    caller: Caller,
    Params(app): Params<String>,
) -> Answered {
    let app = caller.may_in(Action::ReadPush, &app)?;
    Ok(json(StatusCode::OK, &body(app_of(&api.world(), app)?)))
}

/// Changes an app's rate and frequency cap.
#[utoipa::path(patch, path = "/v1/apps/{app}/push", tag = "push", params(("app" = String, Path)),
    request_body = PushPatch, responses(
    (status = 200, body = PushBody),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn patch(
    State(api): State<Api>,
    caller: Caller,
    Params(app): Params<String>,
    input: RawBody,
) -> Answered {
    let app = caller.may_in(Action::WritePush, &app)?;
    let PushPatch { rate, cap } = input.json().await?;
    let before = {
        let world = api.world();
        app_of(&world, app)?.row().push.as_deref().map(|push| push.settings).unwrap_or_default()
    };
    let settings =
        PushSettings { rate: rate.unwrap_or(before.rate), cap: cap.unwrap_or(before.cap) };
    write(&api, Write::SetPushSettings { app, settings }).await
}

/// Sets the credential of a channel: from then on messages with a push policy are pushed over it.
///
/// The key is tried, then the credential is encrypted; nothing gives it out again.
#[utoipa::path(put, path = "/v1/apps/{app}/push/{channel}", tag = "push", operation_id = "set_credential",
    params(("app" = String, Path), ("channel" = String, Path)), request_body = CredentialForm, responses(
    (status = 200, body = PushBody),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn put(
    State(api): State<Api>,
    caller: Caller,
    Params((app, name)): Params<(String, String)>,
    input: RawBody,
) -> Answered {
    let app = caller.may_in(Action::WritePush, &app)?;
    let channel = channel(&name)?;
    let CredentialForm { credential } = input.json().await?;
    let text = Zeroizing::new(Box::<str>::from(credential).into_string());
    let parsed = Credential::parse(channel, text.as_bytes())
        .map_err(|error| problem::invalid_credential(error.to_string()))?;
    let Some(keys) = &api.credential_keys else {
        return Err(problem::invalid_credential("central has no key to encrypt it with").into());
    };
    let nonce: [u8; SEAL_NONCE_LEN] = random::bytes();
    let credential = SealedCredential {
        sealed: keys.seal(app, channel, text.as_bytes(), nonce),
        about: parsed.about().into(),
        set_at: api.shared.clock.now(),
    };
    write(&api, Write::SetCredential { app, channel, credential: Some(credential) }).await
}

/// Takes the credential of a channel away: nothing is pushed over it until there is another.
#[utoipa::path(delete, path = "/v1/apps/{app}/push/{channel}", tag = "push", operation_id = "delete_credential",
    params(("app" = String, Path), ("channel" = String, Path)), responses(
    (status = 200, body = PushBody),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn delete(
    State(api): State<Api>,
    caller: Caller,
    Params((app, name)): Params<(String, String)>,
) -> Answered {
    let app = caller.may_in(Action::WritePush, &app)?;
    write(&api, Write::SetCredential { app, channel: channel(&name)?, credential: None }).await
}
