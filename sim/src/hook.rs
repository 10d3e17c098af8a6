//! How long a lifecycle hook takes: a `sleep` action takes the time that it states, a command takes as long as its
//! `sleep` calls, and any other command or request takes as long as the image's profile says.

use std::time::Duration;

use k8s_openapi::api::core::v1::LifecycleHandler;

/// How long a hook takes if it states so itself; `None` otherwise.
pub fn told_by(hook: &LifecycleHandler) -> Option<Duration> {
    if let Some(sleep) = &hook.sleep {
        return Some(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0)));
    }
    slept_by(hook.exec.as_ref()?.command.as_deref()?)
}

/// The sum of the `sleep` calls in a command, which may be a shell's. `None` if there are none.
fn slept_by(command: &[String]) -> Option<Duration> {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let name = |path: &str| path.rsplit('/').next().map(str::to_owned).unwrap_or_default();
    match words.as_slice() {
        [sleep, times @ ..] if name(sleep) == "sleep" => total(times),
        [shell, flags, script, ..]
            if matches!(&*name(shell), "sh" | "bash" | "ash" | "dash" | "busybox")
                && flags.starts_with('-')
                && flags.ends_with('c') =>
        {
            let commands = script.split([';', '\n', '&', '|', '(', ')', '{', '}']);
            let sleeps = commands.filter_map(|command| {
                let words: Vec<&str> = command.split_whitespace().collect();
                let at = words.iter().position(|w| name(w) == "sleep")?;
                // The words before it belong to the shell (`then sleep 5`, `exec sleep 5`).
                total(&words[at + 1..])
            });
            sleeps.reduce(Duration::saturating_add)
        }
        _ => None,
    }
}

/// The total of the arguments of `sleep`, each in seconds or with a unit; `None` if they are invalid.
pub fn total(times: &[&str]) -> Option<Duration> {
    let mut sum = None;
    for time in times {
        let (number, unit) = match time.char_indices().next_back()? {
            (at, 's') => (&time[..at], 1.0),
            (at, 'm') => (&time[..at], 60.0),
            (at, 'h') => (&time[..at], 3600.0),
            (at, 'd') => (&time[..at], 86_400.0),
            _ => (*time, 1.0),
        };
        let seconds = number.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0)? * unit;
        let next = Duration::try_from_secs_f64(seconds).ok()?;
        sum = Some(sum.unwrap_or(Duration::ZERO).checked_add(next)?);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::told_by;
    use serde_json::{Value, json};

    fn check(hook: Value, seconds: Option<f64>) {
        let told = told_by(&serde_json::from_value(hook.clone()).unwrap());
        assert_eq!(told.map(|d| d.as_secs_f64()), seconds, "{hook}");
    }

    #[test]
    fn hooks_say_how_long_they_take() {
        check(json!({"sleep": {"seconds": 20}}), Some(20.0));
        check(json!({"httpGet": {"port": 80}}), None);
        let exec = |words: &[&str], seconds| check(json!({"exec": {"command": words}}), seconds);
        exec(&["sleep", "20"], Some(20.0));
        exec(&["/bin/sleep", "1.5m", "2"], Some(92.0));
        exec(&["sleep", "soon"], None);
        exec(&["sleep"], None);
        exec(&["sleep", "1e19", "1e19"], None);
        exec(&["sh", "-c", "sleep 20"], Some(20.0));
        exec(&["/bin/bash", "-ec", "sleep 5 && nginx -s quit; sleep 10s"], Some(15.0));
        exec(&["/bin/sh", "-c", "if true; then sleep 3; fi"], Some(3.0));
        exec(&["/bin/sh", "-c", "nginx -s quit"], None);
        exec(&["/bin/sh", "-c", "sleep $GRACE"], None);
        exec(&["nginx", "-s", "quit"], None);
    }
}
