-- One row per sighting of an account.
SELECT
    event_id,
    event_us AS us,
    CASE WHEN arrived_us > event_us + 172800000000 THEN arrived_us ELSE event_us END AS known_us,
    account_id,
    ip,
    device_id,
    CAST(CASE WHEN kind = 'signup' THEN 1 ELSE 0 END AS BIGINT) AS is_signup
FROM accounts
