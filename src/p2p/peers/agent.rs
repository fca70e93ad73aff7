//! What a node of the network says of itself in its agent string: `modal-node/0.1.0;status_url=…;role=Miner`.

use url::Url;

/// Longest role kept, in characters.
const MAX_ROLE_CHARS: usize = 32;
/// Longest address of a status page kept, in characters.
const MAX_URL_CHARS: usize = 512;

/// The role, `Miner` or `Observer` for instance: printable text of at most 32 characters.
pub(super) fn role(agent: &str) -> Option<String> {
    let role = field(agent, "role")?;
    let printable = |c: char| !c.is_control() && !is_invisible(c);
    let plain = !role.is_empty() && role.chars().count() <= MAX_ROLE_CHARS && role.chars().all(printable);
    plain.then(|| role.to_owned())
}

/// The address of the status page: http or https, at most 512 characters.
pub(super) fn status_url(agent: &str) -> Option<String> {
    let url = field(agent, "status_url")?;
    if url.len() > MAX_URL_CHARS {
        return None;
    }
    let parsed = Url::parse(url).ok()?;
    let web = matches!(parsed.scheme(), "http" | "https") && parsed.has_host();
    // What stands before `@` would pass for the host.
    let honest = parsed.username().is_empty() && parsed.password().is_none();
    let plain = url.chars().all(|c| c.is_ascii_graphic() && !"\"'<>\\`".contains(c));
    (web && honest && plain).then(|| url.to_owned())
}

fn field<'a>(agent: &'a str, name: &str) -> Option<&'a str> {
    agent.split(';').skip(1).find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('=')).map(str::trim)
}

/// Characters that change how the text around them looks.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(
        "modal-node/0.1.0;status_url=http://192.0.2.1:8080/;role=Miner",
        Some("Miner"),
        Some("http://192.0.2.1:8080/")
    )]
    #[case("modal-node/0.1.0;role=Observer", Some("Observer"), None)]
    #[case(
        "modal-node/0.1.0; status_url=https://node.example/status?x=1 ",
        None,
        Some("https://node.example/status?x=1")
    )]
    #[case("modal-node/0.1.0;status_url=;role=", None, None)]
    #[case("modal-gateway/0.1.0", None, None)]
    #[case("role=Miner", None, None)]
    #[case::control("x;role=Mi\u{1b}[2Jner", None, None)]
    #[case::override_of_direction("x;role=\u{202e}reniM", None, None)]
    #[case::script("x;status_url=javascript:alert(1)", None, None)]
    #[case::quote("x;status_url=http://a/\"onclick=", None, None)]
    #[case::no_host("x;status_url=/status", None, None)]
    #[case::other_host("x;status_url=http://good.example@evil.example/", None, None)]
    #[case::file("x;status_url=file:///etc/passwd", None, None)]
    fn the_agent_tells_role_and_status_page(
        #[case] agent: &str,
        #[case] expected_role: Option<&str>,
        #[case] expected_url: Option<&str>,
    ) {
        assert_eq!(role(agent).as_deref(), expected_role);
        assert_eq!(status_url(agent).as_deref(), expected_url);
    }

    #[test]
    fn what_is_too_long_is_left_out() {
        let agent = |role: usize, url: usize| {
            format!("x;role={};status_url=http://{}", "m".repeat(role), "h".repeat(url - "http://".len()))
        };
        let (fits, long) = (agent(32, 512), agent(33, 513));
        assert_eq!((role(&fits).map(|r| r.len()), status_url(&fits).map(|u| u.len())), (Some(32), Some(512)));
        assert_eq!((role(&long), status_url(&long)), (None, None));
    }
}
