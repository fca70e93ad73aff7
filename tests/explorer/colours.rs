//! The stylesheet's colours: contrast as WCAG 2.2 computes it, in both schemes.

use std::collections::BTreeMap;

const STYLE: &str = include_str!("../../src/http/explorer/assets/style.css");

/// The variables of a rule for `:root`.
fn colours(rule: &str) -> BTreeMap<&str, [f64; 3]> {
    let lines = rule.lines().filter_map(|line| line.trim().strip_prefix("--")?.split_once(": "));
    let colour = |text: &str| {
        let digits = text.trim_end_matches(';').strip_prefix('#').unwrap();
        [0, 2, 4].map(|at| f64::from(u8::from_str_radix(&digits[at..at + 2], 16).unwrap()) / 255.0)
    };
    lines.map(|(name, text)| (name, colour(text))).collect()
}

/// The contrast of two colours, from 1 to 21.
fn contrast(one: [f64; 3], other: [f64; 3]) -> f64 {
    let luminance = |colour: [f64; 3]| {
        let linear = colour.map(|part| if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) });
        0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    };
    let [one, other] = [luminance(one), luminance(other)];
    (one.max(other) + 0.05) / (one.min(other) + 0.05)
}

#[test]
fn texts_and_borders_stand_out_in_both_schemes() {
    assert!((contrast([0.0; 3], [1.0; 3]) - 21.0).abs() < 0.01);
    let rules: Vec<_> = STYLE.split(":root {").skip(1).map(|rest| rest.split('}').next().unwrap()).collect();
    let (light, dark) = (colours(rules[0]), colours(rules[1]));
    assert_eq!(light.keys().collect::<Vec<_>>(), dark.keys().collect::<Vec<_>>());
    for (scheme, colours) in [("light", light), ("dark", dark)] {
        for back in ["back", "raised"] {
            for text in ["text", "muted", "link", "good", "open", "gone"] {
                let contrast = contrast(colours[text], colours[back]);
                assert!(contrast >= 4.5, "{scheme}: {text} on {back}: {contrast:.2}");
            }
            for edge in ["edge", "focus"] {
                let contrast = contrast(colours[edge], colours[back]);
                assert!(contrast >= 3.0, "{scheme}: {edge} on {back}: {contrast:.2}");
            }
        }
    }
}

#[test]
fn every_colour_is_a_variable() {
    let without_variables = STYLE.lines().filter(|line| !line.trim().starts_with("--") && !line.contains(":root {"));
    for line in without_variables {
        assert!(![": #", "rgb(", "hsl(", "url("].iter().any(|colour| line.contains(colour)), "{line}");
    }
}
