-- One row per verdict that says fraud.
SELECT * FROM (
{% include "facts_verdicts.sql" %}
) AS verdicts
WHERE is_fraud = 1
