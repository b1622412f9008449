-- One row per verdict that says genuine.
SELECT * FROM (
{% include "facts_verdicts.sql" %}
) AS verdicts
WHERE is_fraud = 0
