//! Whether a text is a cron schedule, in the words of the parser that Kubernetes uses (`robfig/cron`, standard form).

/// What is wrong with a schedule, if anything.
pub(super) fn wrong(schedule: &str) -> Option<String> {
    if let Some(descriptor) = schedule.strip_prefix('@') {
        let known = ["yearly", "annually", "monthly", "weekly", "daily", "midnight", "hourly"];
        let every = descriptor.strip_prefix("every ").is_some_and(is_duration);
        return (!known.contains(&descriptor) && !every).then(|| format!("unrecognized descriptor: {schedule}"));
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != 5 {
        return Some(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    let bounds: [(u32, u32, &[&str], u32); 5] =
        [(0, 59, &[], 0), (0, 23, &[], 0), (1, 31, &[], 0), (1, 12, MONTHS, 1), (0, 6, DAYS, 0)];
    fields.iter().zip(bounds).find_map(|(field, bounds)| field.split(',').find_map(|range| wrong_range(range, bounds)))
}

fn is_duration(text: &str) -> bool {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    !text.is_empty() && unit.len() < text.len() && unit.chars().all(|c| "hmsuµn".contains(c) || c.is_ascii_digit())
}

fn wrong_range(range: &str, (min, max, names, first): (u32, u32, &[&str], u32)) -> Option<String> {
    let number = |text: &str| -> Result<u32, String> {
        if let Some(i) = names.iter().position(|n| text.eq_ignore_ascii_case(n)) {
            return Ok(first + i as u32);
        }
        text.parse::<u32>()
            .map_err(|_| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"))
    };
    let check = || -> Result<(), String> {
        let mut halves = range.split('/');
        let (span, step) = (halves.next().unwrap_or(""), halves.next());
        if halves.next().is_some() {
            return Err(format!("too many slashes: {range}"));
        }
        let mut ends = span.split('-');
        let (start, end) = match (ends.next().unwrap_or(""), ends.next()) {
            ("*" | "?", None) => (min, max),
            (low, None) => {
                let low = number(low)?;
                (low, if step.is_some() { max } else { low })
            }
            (low, Some(high)) => (number(low)?, number(high)?),
        };
        if ends.next().is_some() {
            return Err(format!("too many hyphens: {range}"));
        }
        let step = step.map_or(Ok(1), number)?;
        if start < min {
            Err(format!("beginning of range ({start}) below minimum ({min}): {range}"))
        } else if end > max {
            Err(format!("end of range ({end}) above maximum ({max}): {range}"))
        } else if start > end {
            Err(format!("beginning of range ({start}) beyond end of range ({end}): {range}"))
        } else if step == 0 {
            Err(format!("step of range should be a positive number: {range}"))
        } else {
            Ok(())
        }
    };
    check().err()
}

#[cfg(test)]
mod tests {
    use super::wrong;

    #[test]
    fn schedules() {
        for good in ["* * * * *", "*/5 0-6 1,15 jan-mar MON", "@hourly", "@every 1h30m", "0 22 * * 1-5", "5/15 * ? * *"]
        {
            assert_eq!(wrong(good), None, "{good}");
        }
        for (bad, why) in [
            ("* * *", "expected exactly 5 fields, found 3: [* * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("@often", "unrecognized descriptor: @often"),
        ] {
            assert_eq!(wrong(bad).as_deref(), Some(why), "{bad}");
        }
    }
}
