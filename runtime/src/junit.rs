//! JUnit XML, as CI services read it: one suite, with a test case for each seed.

use skeg_sim::report::escape;

/// A test case.
pub struct Case {
    /// Its name.
    pub name: String,
    /// What went wrong in one line, and how to see it again; `None` if all went well.
    pub failure: Option<(String, String)>,
}

/// A suite that took so many seconds.
pub fn suite(name: &str, seconds: f64, cases: impl Iterator<Item = Case>) -> String {
    let (mut body, mut count, mut failures) = (String::new(), 0, 0);
    for case in cases {
        count += 1;
        let head = format!("  <testcase classname=\"{}\" name=\"{}\"", escape(name), escape(&case.name));
        body += &match case.failure {
            None => format!("{head}/>\n"),
            Some((message, detail)) => {
                failures += 1;
                let (message, detail) = (escape(&message), escape(&detail));
                format!("{head}>\n    <failure message=\"{message}\">{detail}</failure>\n  </testcase>\n")
            }
        };
    }
    let name = escape(name);
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"{name}\" tests=\"{count}\" \
         failures=\"{failures}\" errors=\"0\" skipped=\"0\" time=\"{seconds:.3}\">\n{body}</testsuite>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::{Case, suite};

    #[test]
    fn failures_are_told_and_escaped() {
        let failure = Some(("a < b & \"c\"\u{1}".to_owned(), "again: skeg".to_owned()));
        let cases = [Case { name: "seed 0".to_owned(), failure: None }, Case { name: "seed 1".to_owned(), failure }];
        let want = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
            <testsuite name=\"s\" tests=\"2\" failures=\"1\" errors=\"0\" skipped=\"0\" time=\"1.500\">\n\
            \u{20}\u{20}<testcase classname=\"s\" name=\"seed 0\"/>\n\
            \u{20}\u{20}<testcase classname=\"s\" name=\"seed 1\">\n\
            \u{20}\u{20}\u{20}\u{20}<failure message=\"a &lt; b &amp; &quot;c&quot; \">again: skeg</failure>\n\
            \u{20}\u{20}</testcase>\n</testsuite>\n";
        assert_eq!(suite("s", 1.5, cases.into_iter()), want);
    }
}
