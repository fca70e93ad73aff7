//! Conditional requests (RFC 9110, section 13).

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};

/// The conditions of a request: entity tags separated by commas, or `*`.
#[derive(Debug, Default)]
pub struct Conditions {
    if_match: Option<String>,
    if_none_match: Option<String>,
    /// Whether the method is `GET` or `HEAD`.
    reads: bool,
    /// Whether it is `HEAD`: the body is not sent.
    pub(in crate::http) is_head: bool,
}

/// What a request's conditions ask for.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::http) enum Outcome {
    /// The answer.
    Answer,
    /// 304: the client's copy is current.
    NotModified,
    /// 412.
    Failed,
}

impl Conditions {
    /// The conditions in a request's headers.
    pub(in crate::http) fn of(method: &Method, headers: &HeaderMap) -> Self {
        // A tag with other characters is none of ours: it matches nothing.
        let all = |name: HeaderName| {
            let lines: Vec<_> = headers.get_all(name).iter().map(|line| line.to_str().unwrap_or_default()).collect();
            (!lines.is_empty()).then(|| lines.join(","))
        };
        let reads = method == Method::GET || method == Method::HEAD;
        let is_head = method == Method::HEAD;
        Self { if_match: all(header::IF_MATCH), if_none_match: all(header::IF_NONE_MATCH), reads, is_head }
    }

    /// Evaluates them, in the order of RFC 9110, for an answer with this entity tag; without one, no tag is the same.
    pub(in crate::http) fn evaluate(&self, tag: Option<&HeaderValue>) -> Outcome {
        let tag = tag.and_then(|tag| tag.to_str().ok());
        let any = |list: &str, same: fn(&str, &str) -> bool| {
            list.split(',').map(str::trim).any(|copy| copy == "*" || tag.is_some_and(|tag| same(copy, tag)))
        };
        // Weak tags never match strongly.
        if self.if_match.as_deref().is_some_and(|list| !any(list, |copy, tag| copy == tag)) {
            return Outcome::Failed;
        }
        match self.if_none_match.as_deref() {
            Some(list) if any(list, |copy, tag| copy.strip_prefix("W/").unwrap_or(copy) == tag) => match self.reads {
                true => Outcome::NotModified,
                false => Outcome::Failed,
            },
            _ => Outcome::Answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn headers(name: HeaderName, lines: &str) -> HeaderMap {
        lines.lines().map(|line| (name.clone(), HeaderValue::from_str(line).unwrap())).collect()
    }

    #[rstest]
    #[case::none("GET", "", "", Outcome::Answer)]
    #[case::current("GET", "", "\"other\", W/\"a\"", Outcome::NotModified)]
    #[case::any_copy("HEAD", "", "*", Outcome::NotModified)]
    #[case::changed("GET", "", "\"b\"", Outcome::Answer)]
    #[case::same("GET", "\"a\"", "", Outcome::Answer)]
    #[case::any("GET", "*", "", Outcome::Answer)]
    #[case::another("GET", "\"b\"", "", Outcome::Failed)]
    #[case::weak("GET", "W/\"a\"", "", Outcome::Failed)]
    #[case::match_comes_first("GET", "\"b\"", "\"a\"", Outcome::Failed)]
    #[case::post_of_a_copy("POST", "", "\"a\"", Outcome::Failed)]
    #[case::post("POST", "\"a\"", "\"b\"", Outcome::Answer)]
    #[case::empty_member("GET", "", "\"b\",", Outcome::Answer)]
    fn conditions_are_evaluated(
        #[case] method: Method,
        #[case] if_match: &str,
        #[case] if_none_match: &str,
        #[case] outcome: Outcome,
    ) {
        let mut map = headers(header::IF_MATCH, if_match);
        map.extend(headers(header::IF_NONE_MATCH, if_none_match));
        let tag = HeaderValue::from_static("\"a\"");
        assert_eq!(Conditions::of(&method, &map).evaluate(Some(&tag)), outcome);
    }

    #[rstest]
    #[case("GET", header::IF_MATCH, "\"a\",", Outcome::Failed)]
    #[case("GET", header::IF_MATCH, "*", Outcome::Answer)]
    #[case("GET", header::IF_NONE_MATCH, "\"a\",", Outcome::Answer)]
    #[case("GET", header::IF_NONE_MATCH, "*", Outcome::NotModified)]
    #[case("DELETE", header::IF_NONE_MATCH, "*", Outcome::Failed)]
    fn an_answer_without_a_tag_is_no_copy(
        #[case] method: Method,
        #[case] name: HeaderName,
        #[case] lines: &str,
        #[case] outcome: Outcome,
    ) {
        assert_eq!(Conditions::of(&method, &headers(name, lines)).evaluate(None), outcome);
    }
}
