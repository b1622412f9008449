-- One row per signup: what an account said of itself.
SELECT
    event_id,
    event_us AS us,
    CASE WHEN arrived_us > event_us + 172800000000 THEN arrived_us ELSE event_us END AS known_us,
    account_id,
    plan,
    email_domain
FROM accounts
WHERE kind = 'signup'
