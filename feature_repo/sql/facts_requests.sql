-- One row per request: who, when, known since when, and the numbers that features add up.
SELECT
    event_id,
    event_us AS us,
    CASE WHEN arrived_us > event_us + 172800000000 THEN arrived_us ELSE event_us END AS known_us,
    account_id,
    ip,
    CAST(num_tokens AS BIGINT) AS num_tokens,
    CAST(0 AS BIGINT) AS is_signup
FROM requests
