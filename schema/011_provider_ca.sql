-- Of a provider whose certificate is signed by nobody whom the system trusts: PEM of who alone may sign it.
ALTER TABLE provider ADD COLUMN ca text;
