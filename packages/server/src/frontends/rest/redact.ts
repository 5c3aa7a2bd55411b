/** Takes secrets out of what `/help/config` and `/help/env` show. */

/** A name that ends in `file` or `path` holds a path, which is no secret. */
const SECRET_NAME =
  /(?:key|token|secret|passw(?:or)?d|passphrase|chap|credential|cookie|private|signature|salt)/i;
const PATH_NAME = /(?:file|path|folder|dir)$/i;
/** Names that hold a word like those above and yet say nothing secret. */
const HARMLESS_NAME = /^(?:disablekeepalive|keepalive)$/i;
const JWT = /eyJ[\w-]{4,}\.[\w-]+\.[\w-]*/g;
const PEM = /-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?-----END [A-Z ]*PRIVATE KEY-----/g;
const URL_PASSWORD = /(\b[a-z][\w+.-]*:\/\/[^\s/:@]*:)[^\s/@]+@/gi;

export const REDACTED = "REDACTED";

export function isSecretName(name: string): boolean {
  return SECRET_NAME.test(name) && !PATH_NAME.test(name) && !HARMLESS_NAME.test(name);
}

function redactText(text: string): string {
  return text.replace(JWT, REDACTED).replace(PEM, REDACTED).replace(URL_PASSWORD, `$1${REDACTED}@`);
}

/** A copy with keys in lower case and in order, and secrets replaced at any depth. */
export function redactConfig(value: unknown): unknown {
  if (typeof value === "string") return redactText(value);
  if (Array.isArray(value)) return value.map(redactConfig);
  if (typeof value !== "object" || value === null) return value;
  const result: Record<string, unknown> = {};
  for (const [key, member] of Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1)))
    result[key.toLowerCase()] = isSecretName(key) ? hide(member) : redactConfig(member);
  return result;
}

/** What is not set, or is a switch or a number, stays: it tells nothing. */
function hide(value: unknown): unknown {
  if (value === undefined || value === null || value === "" || typeof value === "boolean")
    return value;
  return REDACTED;
}

/** `NAME=value`, in order of the names. */
export function redactEnv(env: Readonly<Record<string, string | undefined>>): string[] {
  return Object.keys(env)
    .toSorted()
    .map((name) => {
      const value = env[name] ?? "";
      return `${name}=${isSecretName(name) && value !== "" ? REDACTED : redactText(value)}`;
    });
}
