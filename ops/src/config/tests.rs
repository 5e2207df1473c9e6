use std::ffi::OsString;
use std::fs;

use expect_test::{Expect, expect, expect_file};

use super::*;

/// A folder with `carillon.toml` in it, and the sources to read it with.
struct Case {
    folder: tempfile::TempDir,
    sources: Sources,
}

fn case(toml: &str) -> Case {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("carillon.toml");
    fs::write(&path, toml).expect("write the configuration");
    Case { folder, sources: Sources { file: Some(path), ..Sources::default() } }
}

impl Case {
    fn env(mut self, name: &str, value: &str) -> Self {
        self.sources.environment.push((OsString::from(name), OsString::from(value)));
        self
    }

    fn flag(mut self, path: &str, value: &str) -> Self {
        self.sources.flags.push((path.to_owned(), value.to_owned()));
        self
    }

    /// What the operator reads, the temporary folder's name left out.
    fn check(&self, expected: Expect) {
        let text = match self.sources.load() {
            Ok(loaded) => loaded.unknown.iter().map(|unknown| format!("{unknown}\n")).collect(),
            Err(faults) => faults.to_string(),
        };
        let folder = format!("{}/", self.folder.path().display());
        expected.assert_eq(&text.replace(&folder, ""));
    }

    fn settings(&self) -> Settings {
        self.sources.load().expect("no faults").settings
    }
}

#[test]
fn all_faults_come_at_once_with_key_place_and_expected_type() {
    case(
        r#"drain_max = 30

[log]
format = "xml"

[central]
listen = "localhost"
stream_window = "4MB"
horizon_changes = 0
store = "postgres://user:hunter2@db/carillon"

[edge]
cores = "four"
central = "central.internal"
"#,
    )
    .env("CARILLON__EDGE__LISTEN", "everywhere")
    .flag("log.filter", "carillon_edge=loud")
    .check(expect![[r#"
        the configuration has 10 faults
          drain_max: expected a duration above zero in ms, s, m, h or d, like "30s"; found 30 (carillon.toml:1)
          log.format: expected one of "auto", "text", "json"; found "xml" (carillon.toml:4)
          log.filter: expected a filter, like "info" or "info,carillon_edge=debug"; found "carillon_edge=loud" (flag --log-filter)
          central.listen: expected an IP address with port, like "127.0.0.1:7700"; found "localhost" (carillon.toml:7)
          central.store: expected "sqlite:PATH" or "mysql://USER:PASSWORD@HOST:PORT/DATABASE"; found a value that is not shown (carillon.toml:10)
          central.stream_window: expected a size above zero in B, KiB, MiB or GiB, like "4MiB"; found "4MB" (carillon.toml:8)
          central.horizon_changes: expected a whole number from 1; found 0 (carillon.toml:9)
          edge.central: expected a host with port, like "central.internal:7701"; found "central.internal" (carillon.toml:14)
          edge.listen: expected an IP address with port, like "127.0.0.1:7443", or "off"; found "everywhere" (environment CARILLON__EDGE__LISTEN)
          edge.cores: expected a whole number from 1; found "four" (carillon.toml:13)"#]]);
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let toml = "[central]\nlisten = \"127.0.0.1:1\"\nhorizon = \"1h\"\n";
    let listen = |case: &Case| case.settings().central.listen.to_string();
    let default = case("");
    assert_eq!(listen(&default), "127.0.0.1:7700");
    let file = case(toml);
    assert_eq!(listen(&file), "127.0.0.1:1");
    let environment = case(toml).env("CARILLON__CENTRAL__LISTEN", "127.0.0.1:2");
    assert_eq!(listen(&environment), "127.0.0.1:2");
    let flag = case(toml)
        .env("CARILLON__CENTRAL__LISTEN", "127.0.0.1:2")
        .flag("central.listen", "127.0.0.1:3");
    assert_eq!(listen(&flag), "127.0.0.1:3");
    assert_eq!(flag.settings().central.horizon, std::time::Duration::from_secs(3600));
}

#[test]
fn a_fault_that_a_higher_source_overrides_is_none() {
    case("[central]\nlisten = \"localhost\"\n")
        .env("CARILLON__CENTRAL__LISTEN", "127.0.0.1:2")
        .check(expect![""]);
}

#[test]
fn unknown_keys_are_listed_with_the_nearest_known_one() {
    case("colour = true\n[central]\nlissen = \"127.0.0.1:1\"\nplain_listen = \"127.0.0.1:2\"\n[edge.tls]\nciphers = \"\"\n")
        .env("CARILLON__LOG__FILTRE", "debug")
        .env("CARILLON_BIN", "/usr/bin/carillon")
        .check(expect![[r#"
            central.lissen: unknown key, did you mean central.listen? (carillon.toml:3)
            central.plain_listen: unknown key, did you mean edge.plain_listen? (carillon.toml:4)
            colour: unknown key (carillon.toml:1)
            edge.tls: unknown key (carillon.toml:5)
            log.filtre: unknown key, did you mean log.filter? (environment CARILLON__LOG__FILTRE)
        "#]]);
}

#[test]
fn broken_toml_names_the_line_and_hides_no_other_fault() {
    case("[log]\nformat = \"xml\"\nfilter = \n\n[edge]\nname = \"\"\n").check(expect![[r#"
        the configuration has 4 faults
          syntax: string values must be quoted, expected literal string (carillon.toml:3)
          log.format: expected one of "auto", "text", "json"; found "xml" (carillon.toml:2)
          log.filter: expected a filter, like "info" or "info,carillon_edge=debug"; found "" (carillon.toml:3)
          edge.name: expected a text that is not empty; found "" (carillon.toml:6)"#]]);
}

#[test]
fn a_section_written_as_a_value_is_a_fault() {
    case("central = 3\n").check(expect![[r#"
        the configuration has 1 fault
          central: expected a table, [central]; found 3 (carillon.toml:1)"#]]);
}

#[test]
fn a_file_that_cannot_be_read_is_a_fault() {
    let mut case = case("");
    case.sources.file = Some(case.folder.path().join("absent.toml"));
    case.check(expect![[r#"
        the configuration has 1 fault
          absent.toml: cannot be read: No such file or directory (os error 2)"#]]);
}

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn secrets_come_from_a_file_or_the_environment_and_the_higher_source_wins() {
    let case = case("");
    let path = case.folder.path().join("token");
    fs::write(&path, format!("{TOKEN}\n")).expect("write the token");
    let path = path.to_str().expect("UTF-8").to_owned();
    let case = case.flag("edge.link_token_file", &path);
    let token = |case: &Case| case.settings().edge.link_token.expect("set").reveal().to_owned();
    assert_eq!(token(&case), TOKEN);
    let other = "f".repeat(32);
    let case = case.env("CARILLON__EDGE__LINK_TOKEN", &other);
    assert_eq!(token(&case), TOKEN, "the flag is above the environment");
    let case = self::case("").env("CARILLON__EDGE__LINK_TOKEN", &other);
    assert_eq!(token(&case), other);
}

#[test]
fn a_secret_is_refused_in_the_file_and_shown_nowhere() {
    let inline = case("[central]\nadmin_token = \"hunter2-hunter2-hunter2-hunter2-\"\n")
        .env("CARILLON__CENTRAL__ROOT_SECRET", "hunter2")
        .flag("central.link_token_file", "/nonexistent/token");
    inline.check(expect![[r#"
        the configuration has 3 faults
          central.admin_token: a secret must not stand here; set central.admin_token_file or the variable CARILLON__CENTRAL__ADMIN_TOKEN (carillon.toml:2)
          central.link_token_file: /nonexistent/token cannot be read: No such file or directory (os error 2) (flag --central-link-token-file)
          central.root_secret: expected 64 hexadecimal digits; found a value that is not shown (environment CARILLON__CENTRAL__ROOT_SECRET)"#]]);
    let good = case("")
        .env("CARILLON__CENTRAL__ADMIN_TOKEN", "hunter2-hunter2-hunter2-hunter2-")
        .env("CARILLON__CENTRAL__STORE_PASSWORD", "hunter2")
        .env("CARILLON__CENTRAL__STORE", "mysql://carillon@db:3306/carillon");
    let shown = format!("{:?}", good.settings());
    assert!(shown.contains("Secret(…)") && shown.contains("db:3306"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
    let url = good.settings().central.store.expect("set");
    let password = good.settings().central.store_password.expect("set");
    let shown = format!("{:?}", with_password(&url, &password));
    assert!(shown.contains("db:3306") && !shown.contains("%68"), "{shown}");
}

#[test]
fn a_password_is_put_into_the_url_whatever_it_holds() {
    use super::kinds::{Password, Setting};
    use carillon_persist::StoreUrl;
    let password = Password::parse("a:b@c/d%").expect("a password");
    let url = |text: &str| text.parse::<StoreUrl>().expect("a URL");
    assert_eq!(
        with_password(&url("mysql://me@db:3306/x"), &password),
        Some(StoreUrl::Mysql("mysql://me:%61%3A%62%40%63%2F%64%25@db:3306/x".to_owned()))
    );
    for text in ["mysql://db:3306/x", "mysql://me:pw@db:3306/x", "sqlite:x"] {
        assert_eq!(with_password(&url(text), &password), None, "{text}");
    }
}

#[test]
fn faults_between_keys_come_together_too() {
    let mut case =
        case("drain_max = \"1s\"\n[edge]\nlisten = \"off\"\nhead_bytes_max = \"1KiB\"\n")
            .env("CARILLON__EDGE__LINK_TOKEN", TOKEN);
    case.sources.required = &["edge.link_token"];
    case.check(expect![[r#"
        the configuration has 4 faults
          edge.drain_spread: expected less than drain_max, which is 1s
          edge.head_bytes_max: expected at least 8KiB (carillon.toml:4)
          edge.listen: expected an address here or in edge.plain_listen (carillon.toml:3)
          edge.central_ca_file: required, since the link token names no certificate authority"#]]);
}

#[test]
fn limits_of_expressions_have_ceilings() {
    let keys = "expression_bytes_max = \"256KiB\"\nexpression_nodes_max = 32768\nexpression_depth_max = 512\n\
                audience_depth_max = 64\n";
    case(&format!("[central]\n{keys}")).check(expect![""]);
    let beyond = keys.replace("256K", "257K").replace("68", "69").replace("12", "13");
    let beyond = beyond.replace("= 64", "= 65");
    case(&format!("[central]\n{beyond}")).check(expect![[r#"
        the configuration has 4 faults
          central.expression_bytes_max: expected at most 262144 (carillon.toml:2)
          central.expression_nodes_max: expected at most 32768 (carillon.toml:3)
          central.expression_depth_max: expected at most 512 (carillon.toml:4)
          central.audience_depth_max: expected at most 64 (carillon.toml:5)"#]]);
}

#[test]
fn the_clock_ticks_between_a_second_and_an_hour() {
    for within in ["1s", "1h"] {
        case(&format!("[central]\nclock_tick = \"{within}\"\n")).check(expect![""]);
    }
    for beyond in ["999ms", "3601s"] {
        case(&format!("[central]\nclock_tick = \"{beyond}\"\n")).check(expect![[r#"
            the configuration has 1 fault
              central.clock_tick: expected 1s to 1h (carillon.toml:2)"#]]);
    }
}

#[test]
fn a_certificate_needs_its_key_and_an_edge_its_token() {
    let mut case = case("[edge]\ncertificate_file = \"/nonexistent.pem\"\n");
    case.sources.required = &["edge.link_token"];
    case.check(expect![[r#"
        the configuration has 2 faults
          edge.key_file: required, since edge.certificate_file is set (carillon.toml:2)
          edge.link_token: required; set edge.link_token_file or the variable CARILLON__EDGE__LINK_TOKEN"#]]);
}

#[test]
fn the_secret_of_a_pair_may_stand_in_a_file() {
    let secret = case("");
    let path = secret.folder.path().join("secret");
    fs::write(&path, "hush\n").unwrap();
    let path = path.to_str().expect("UTF-8").to_owned();
    let with_key = |case: Case| case.flag("history.s3_key_id", "carillon");
    with_key(secret.flag("history.s3_secret_file", &path)).check(expect![""]);
    with_key(case("")).check(expect![[r#"
        the configuration has 1 fault
          history.s3_secret: required, since history.s3_key_id is set (flag --history-s3-key-id)"#]]);
}

#[test]
fn a_file_that_holds_no_certificate_is_a_fault() {
    let case = case("");
    let path = case.folder.path().join("carillon.toml");
    let path = path.to_str().expect("UTF-8").to_owned();
    let case = case.flag("edge.certificate_file", &path).flag("edge.key_file", &path);
    case.check(expect![[r#"
        the configuration has 2 faults
          edge.certificate_file: no certificate in PEM is in the file (flag --edge-certificate-file)
          edge.key_file: no private key in PEM can be read: no items found (flag --edge-key-file)"#]]);
}

#[test]
fn the_printed_defaults_are_the_defaults() {
    let printed = case(&defaults_toml());
    assert_eq!(printed.settings(), case("").settings());
    printed.check(expect![""]);
}

#[test]
fn every_key_has_its_own_flag_and_variable() {
    let mut flags: Vec<String> = all_keys().map(Key::flag).collect();
    let mut variables: Vec<String> = all_keys().map(Key::variable).collect();
    let count = flags.len();
    flags.sort();
    flags.dedup();
    variables.sort();
    variables.dedup();
    assert_eq!((flags.len(), variables.len()), (count, count));
}

/// `UPDATE_EXPECT=1` writes the page.
#[test]
fn the_page_of_the_manual_is_current() {
    expect_file!["../../../docs/configuration.md"].assert_eq(&reference_markdown());
}

#[test]
fn sizes_and_durations_neither_overflow_nor_take_zero() {
    use super::kinds::{ByteSize, Setting};
    use std::time::Duration;
    let none = [
        "",
        "s",
        "0s",
        "1",
        "-1s",
        "1.5s",
        "1w",
        "99999999999999999999s",
        "18446744073709551615d",
        "40000d",
    ];
    for text in none {
        assert_eq!(Duration::parse(text), None, "{text}");
    }
    assert_eq!(Duration::parse("7d"), Some(Duration::from_secs(604_800)));
    assert_eq!(Duration::parse("250ms"), Some(Duration::from_millis(250)));
    for text in ["", "MiB", "0B", "1", "4MB", "18446744073709551615GiB"] {
        assert_eq!(ByteSize::parse(text), None, "{text}");
    }
    assert_eq!(ByteSize::parse("4MiB"), Some(ByteSize(4 << 20)));
}
