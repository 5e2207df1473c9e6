// Verifies calls. Standard input is JSON, a list of {"secret", "headers", "body"}; standard output is a list of null for each
// that verifies, and of what the library says for each that does not.
import { readFileSync } from "node:fs";
import { Webhook } from "standardwebhooks";

const judge = ({ secret, headers, body }) => {
  try {
    new Webhook(secret).verify(body, headers);
    return null;
  } catch (error) {
    return String(error.message ?? error);
  }
};
process.stdout.write(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map(judge)));
