//! Expressions, time zones, and what happens where clocks are changed.

use time::macros::{datetime, format_description};

use super::*;

/// The next due times after a time in UTC, as `DD HH:MM` in UTC.
fn due(cron: &str, zone: &str, after: Timestamp, many: usize) -> Vec<String> {
    let format = format_description!("[day] [hour]:[minute]");
    let schedule = Schedule::parse(cron, zone).unwrap();
    let upcoming = schedule.upcoming(after, many);
    upcoming.into_iter().map(|due| due.format(format).unwrap()).collect()
}

#[test]
fn the_usual_expressions_mean_what_cron_says() {
    let after = datetime!(2026-01-01 00:00 UTC); // a Thursday
    assert_eq!(due("*/15 * * * *", "UTC", after, 3), ["01 00:15", "01 00:30", "01 00:45"]);
    assert_eq!(
        due("0 9-17/4 * * MON-FRI", "UTC", after, 4),
        ["01 09:00", "01 13:00", "01 17:00", "02 09:00"]
    );
    assert_eq!(due("@daily", "UTC", after, 2), ["02 00:00", "03 00:00"]);
    assert_eq!(due("0 0 L * *", "UTC", after, 2), ["31 00:00", "28 00:00"]);
    assert_eq!(due("0 0 * * mon#2", "UTC", after, 2), ["12 00:00", "09 00:00"]);
    assert_eq!(due("0 0 * * FRI#L", "UTC", after, 2), ["30 00:00", "27 00:00"]);
    assert_eq!(due("0 0 * * 7", "UTC", after, 1), due("0 0 * * SUN", "UTC", after, 1));
    // Both days are restricted: either fits; with `+`, both must.
    assert_eq!(due("0 0 13 * FRI", "UTC", after, 3), ["02 00:00", "09 00:00", "13 00:00"]);
    assert_eq!(due("0 0 13 * +FRI", "UTC", after, 2), ["13 00:00", "13 00:00"]);
    let seconds = Schedule::parse("*/20 * * * * *", "UTC").unwrap();
    let expected = [20, 40, 60].map(|s| after + time::Duration::seconds(s));
    assert_eq!(seconds.upcoming(after + time::Duration::milliseconds(300), 3), expected);
}

#[test]
fn an_expression_that_cannot_be_read_is_told_by_its_field() {
    let field = |cron: &str| match Schedule::parse(cron, "UTC").unwrap_err() {
        InvalidSchedule::Field { field, text, allowed } => {
            assert!(!allowed.is_empty());
            format!("{field}: {text}")
        }
        other => panic!("{cron}: {other:?}"),
    };
    assert_eq!(field("60 * * * *"), "minute: 60");
    assert_eq!(field("61 * * * * *"), "second: 61");
    assert_eq!(field("0 24 * * *"), "hour: 24");
    assert_eq!(field("0 0 0 * *"), "day of the month: 0");
    assert_eq!(field("0 0 1 13 *"), "month: 13");
    assert_eq!(field("0 0 * FRI *"), "month: FRI");
    assert_eq!(field("0 0 * * MAR"), "day of the week: MAR");
    assert_eq!(field("0 0 * * TUESDAY"), "day of the week: TUESDAY");
    assert_eq!(field("0 0 * * 8"), "day of the week: 8");
    assert_eq!(field("0 0 * * MON#6"), "day of the week: MON#6");
    assert_eq!(field("5/10 * * * *"), "minute: 5/10");
    assert_eq!(field("*/0 * * * *"), "minute: */0");
    assert_eq!(field("0 5-1 * * *"), "hour: 5-1");
    assert_eq!(field("1,,2 * * * *"), "minute: 1,,2");
    assert_eq!(field("H H * * *"), "minute: H");
    assert_eq!(field("0 0 * * ä"), "day of the week: ä");
    let long = format!("0 0 * * {}", "1,".repeat(200));
    for bad in ["", "  ", "* * * *", "* * * * * * 2026", "@reboot", "@every 5m", "nightly", &long] {
        assert_eq!(Schedule::parse(bad, "UTC").unwrap_err(), InvalidSchedule::Fields, "{bad}");
    }
}

#[test]
fn an_expression_that_no_date_fits_is_refused() {
    for never in ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 30 2 +MON", "0 0 31W 2 *"] {
        assert_eq!(Schedule::parse(never, "UTC").unwrap_err(), InvalidSchedule::Never, "{never}");
    }
    // Once in 28 years is not never.
    let rare = Schedule::parse("0 0 29 2 +MON", "Europe/Berlin").unwrap();
    assert!(rare.after(datetime!(2026-01-01 0:00 UTC)).is_some());
}

#[test]
fn a_time_zone_is_found_by_its_name_in_the_iana_database() {
    let zone = |name: &str| Schedule::parse("@daily", name).map(|it| it.time_zone().to_owned());
    for (asked, found) in
        [("UTC", "UTC"), ("europe/berlin", "Europe/Berlin"), ("Etc/GMT+3", "Etc/GMT+3")]
    {
        assert_eq!(zone(asked), Ok(found.to_owned()));
    }
    for bad in [
        "",
        "Berlin",
        "CEST",
        "UTC+3",
        "+02:00",
        "localtime",
        "posixrules",
        "Factory",
        "Etc/Unknown",
        "../etc/passwd",
        "Europe/Berlin\0",
    ] {
        assert_eq!(zone(bad), Err(InvalidSchedule::TimeZone(bad.to_owned())), "{bad}");
    }
}

#[test]
fn the_expression_is_kept_with_single_spaces() {
    let schedule = Schedule::parse("  0   3 * *\tmon ", "utc").unwrap();
    assert_eq!((schedule.expression(), schedule.time_zone()), ("0 3 * * mon", "UTC"));
}

/// Berlin, 29 March 2026: at 02:00 the clocks show 03:00.
#[test]
fn in_a_gap_a_fixed_time_runs_at_its_end_and_anything_else_follows_the_clock() {
    let before = datetime!(2026-03-28 23:00 UTC); // 00:00 in Berlin
    let of = |cron| due(cron, "Europe/Berlin", before, 3);
    // 03:00, then 02:30 in summer time.
    assert_eq!(of("30 2 * * *"), ["29 01:00", "30 00:30", "31 00:30"]);
    // 01:30 and 02:30 are two times a day, so no fixed one: 02:30 does not come.
    assert_eq!(of("30 1,2 * * *"), ["29 00:30", "29 23:30", "30 00:30"]);
    assert_eq!(of("0 * * * *"), ["29 00:00", "29 01:00", "29 02:00"]);
    // Midnight in São Paulo did not come on 4 November 2018.
    let before = datetime!(2018-11-03 12:00 UTC);
    assert_eq!(due("0 0 * * *", "America/Sao_Paulo", before, 2), ["04 03:00", "05 02:00"]);
}

/// Berlin, 25 October 2026: at 03:00 the clocks show 02:00 again.
#[test]
fn in_a_repeated_hour_a_fixed_time_runs_once_and_anything_else_follows_the_clock() {
    let before = datetime!(2026-10-24 22:30 UTC); // 00:30 in Berlin
    let of = |cron, many| due(cron, "Europe/Berlin", before, many);
    assert_eq!(of("30 2 * * *", 2), ["25 00:30", "26 01:30"]);
    assert_eq!(of("0 * * * *", 5), ["24 23:00", "25 00:00", "25 01:00", "25 02:00", "25 03:00"]);
    assert_eq!(of("30 1,2 * * *", 4), ["24 23:30", "25 00:30", "25 01:30", "26 00:30"]);
}

/// Samoa left out the whole of 30 December 2011.
#[test]
fn a_day_that_a_zone_leaves_out_is_passed() {
    let before = datetime!(2011-12-29 12:00 UTC); // 02:00 on the 29th
    let noon = Schedule::parse("0 12 * * *", "Pacific/Apia").unwrap();
    let (last, first) = (datetime!(2011-12-29 22:00 UTC), datetime!(2011-12-30 22:00 UTC));
    assert_eq!(noon.upcoming(before, 2), [last, first]);
    assert_eq!(noon.until(first - time::Duration::SECOND), Some(last));
    assert_eq!(noon.until(first), Some(first));
}

/// What was due is found from either side, also where clocks are changed.
#[test]
fn looking_back_finds_what_looking_forward_announced() {
    let (from, to) = (datetime!(2018-01-01 0:00 UTC), datetime!(2019-01-01 0:00 UTC));
    for zone in
        ["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/Sao_Paulo", "Africa/Casablanca"]
    {
        for cron in ["30 2 * * *", "0 0 * * *", "*/30 * * * *", "30 1,2 * * *", "15 0 * * SUN"] {
            let schedule = Schedule::parse(cron, zone).unwrap();
            let forward: Vec<_> =
                std::iter::successors(schedule.after(from), |due| schedule.after(*due))
                    .take_while(|due| *due <= to)
                    .collect();
            let back = |due: &Timestamp| schedule.until(*due - time::Duration::SECOND);
            let mut backward: Vec<_> = std::iter::successors(schedule.until(to), back)
                .take_while(|due| *due > from)
                .collect();
            backward.reverse();
            assert_eq!(forward, backward, "{cron} in {zone}");
            assert!(forward.is_sorted_by(|a, b| a < b) && forward.len() >= 52, "{cron} in {zone}");
        }
    }
}
