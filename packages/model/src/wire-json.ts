/**
 * JSON as the reference writes it: two spaces of indent, no final newline, and the five characters that
 * Go's encoder escapes.
 */
const ESCAPED = /[<>&\u2028\u2029]/g;

/** Go's encoder escapes these so that JSON can stand inside HTML. */
function escapeForHtml(json: string): string {
  return json.replace(ESCAPED, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

export function wireJson(value: unknown): string {
  return escapeForHtml(JSON.stringify(value, null, 2) ?? "null");
}

/** A copy with its keys in order: maps go sorted onto the wire. */
export function sorted<T>(map: Readonly<Record<string, T>>): Record<string, T> {
  return Object.fromEntries(
    Object.keys(map)
      .toSorted()
      .map((key) => [key, map[key] as T]),
  );
}
