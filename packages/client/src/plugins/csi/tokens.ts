/**
 * Tokens of pages: the id after which the next page begins. They stay valid while objects come and go,
 * and in every plugin of this version; what is no token of the list is told so.
 */
import { createHash } from "node:crypto";
import { CsiError } from "./status.js";

function check(list: string, id: string): string {
  return createHash("sha256").update(`${list}\n${id}`).digest("base64url").slice(0, 8);
}

export function tokenAfter(list: string, id: string): string {
  return `1.${check(list, id)}.${Buffer.from(id).toString("base64url")}`;
}

/**
 * @returns the id, or undefined for the first page
 * @throws {CsiError} ABORTED, as the specification wants it
 */
export function idOfToken(list: string, token: string): string | undefined {
  if (token === "") return undefined;
  const [version = "", sum = "", text = "", ...rest] = token.split(".");
  const id = Buffer.from(text, "base64url").toString();
  if (version === "1" && rest.length === 0 && id !== "" && check(list, id) === sum) return id;
  throw new CsiError(
    "ABORTED",
    `starting_token is none of the list of ${list}; begin again without one`,
  );
}
