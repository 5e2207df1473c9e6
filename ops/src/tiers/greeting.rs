//! What `up` prints when all of it listens: where, and the first thing to try.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Where things are, as reached from this machine.
#[derive(Debug)]
pub(super) struct Greeting<'a> {
    pub(super) data: &'a Path,
    pub(super) admin: SocketAddr,
    pub(super) stream: SocketAddr,
    pub(super) devices: Option<SocketAddr>,
    pub(super) devices_plain: Option<SocketAddr>,
    pub(super) ops: Option<SocketAddr>,
    /// The file that holds it; none if the operator gave the token.
    pub(super) admin_token: Option<&'a PathBuf>,
    /// What devices may trust; none if the operator gave a certificate.
    pub(super) ca: Option<PathBuf>,
}

impl Greeting<'_> {
    /// The text. The token is named by its file and never printed: terminals are recorded.
    pub(super) fn text(&self) -> String {
        let data = self.data.display();
        let token = match self.admin_token {
            Some(path) => format!("$(cat {})", quoted(path)),
            None => "$TOKEN".to_owned(),
        };
        let mut lines =
            vec![format!("carillon {} is up, data in {data}", env!("CARGO_PKG_VERSION"))];
        let mut line = |what: &str, url: String| lines.push(format!("  {what:<12} {url}"));
        line("admin API", format!("http://{}", self.admin));
        line("edges", format!("{} (TLS)", self.stream));
        if let Some(address) = self.devices {
            let ca = self.ca.as_deref().map(|path| format!(" (CA {})", path.display()));
            line(
                "devices",
                format!("https://localhost:{}{}", address.port(), ca.unwrap_or_default()),
            );
        }
        if let Some(address) = self.devices_plain {
            line("devices", format!("http://{address}"));
        }
        if let Some(address) = self.ops {
            line("edge's ops", format!("http://{address}/metrics"));
        }
        let admin = self.admin;
        lines.join("\n")
            + &format!(
                r##"

To try it, create an app, a group and a message for that group:
  api=http://{admin}/v1; auth="Authorization: Bearer {token}"
  app=$(curl -s -H "$auth" --json '{{"name":"first","environment":"sandbox"}}' $api/apps | sed 's/.*"id":"\([0-9a-f]*\)".*/\1/')
  curl -H "$auth" --json '{{"name":"vip","set_by":"device"}}' $api/apps/$app/groups
  curl -H "$auth" --json '{{"to":"#vip","body":{{"text":"hello"}}}}' $api/apps/$app/messages
"##
            )
    }
}

/// A path as one word of a POSIX shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use expect_test::expect;

    use super::*;

    #[test]
    fn the_greeting_says_where_and_what_first_and_its_commands_are_a_shells() {
        let token = PathBuf::from("my data/admin.token");
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let greeting = Greeting {
            data: Path::new("my data"),
            admin: at(7700),
            stream: at(7701),
            devices: Some(at(7443)),
            devices_plain: None,
            ops: Some(at(7444)),
            admin_token: Some(&token),
            ca: Some(PathBuf::from("my data/ca.pem")),
        };
        let text = greeting.text();
        expect![[r##"
            carillon 0.1.0 is up, data in my data
              admin API    http://127.0.0.1:7700
              edges        127.0.0.1:7701 (TLS)
              devices      https://localhost:7443 (CA my data/ca.pem)
              edge's ops   http://127.0.0.1:7444/metrics

            To try it, create an app, a group and a message for that group:
              api=http://127.0.0.1:7700/v1; auth="Authorization: Bearer $(cat 'my data/admin.token')"
              app=$(curl -s -H "$auth" --json '{"name":"first","environment":"sandbox"}' $api/apps | sed 's/.*"id":"\([0-9a-f]*\)".*/\1/')
              curl -H "$auth" --json '{"name":"vip","set_by":"device"}' $api/apps/$app/groups
              curl -H "$auth" --json '{"to":"#vip","body":{"text":"hello"}}' $api/apps/$app/messages
        "##]].assert_eq(&text);
        let (_, commands) = text.split_once(":\n").expect("commands come last");
        let checked = Command::new("sh").args(["-n", "-c", commands]).status().expect("run sh");
        assert!(checked.success());
    }
}
