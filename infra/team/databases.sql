-- One database for each tool; PostgreSQL's own image runs this once, on an empty volume.
CREATE DATABASE dagster;
CREATE DATABASE mlflow;
CREATE DATABASE feast;
