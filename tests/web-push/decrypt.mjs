// Opens one Web Push body (RFC 8291). Standard input is JSON, with all bytes in base64url:
// {"private_key", "auth", "body"}; standard output is the plaintext.
import { createECDH } from "node:crypto";
import { readFileSync } from "node:fs";
import ece from "http_ece";

const told = JSON.parse(readFileSync(0, "utf8"));
const receiver = createECDH("prime256v1");
receiver.setPrivateKey(Buffer.from(told.private_key, "base64url"));
const opened = ece.decrypt(Buffer.from(told.body, "base64url"), {
  version: "aes128gcm",
  privateKey: receiver,
  authSecret: told.auth,
});
process.stdout.write(opened);
