"""GraphQL on both ends of a link: the client, and what a server makes of a request before its application does."""
