/** The recorded exchanges in `test/compat/`: what the original servers answered. */
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

/** One or several lines of a header. */
export type HeaderValue = string | readonly string[];

export interface RecordedRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, HeaderValue>>;
  readonly body: string | null;
}

export interface RecordedResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, HeaderValue>>;
  readonly body: string | null;
}

export interface Recorded {
  readonly request: RecordedRequest;
  readonly response: RecordedResponse;
  readonly note?: string;
}

const FOLDER = new URL("../../compat/", import.meta.url);

export async function readTrace(name: string): Promise<readonly Recorded[]> {
  const text = await readFile(fileURLToPath(new URL(`${name}.json`, FOLDER)), "utf8");
  return JSON.parse(text) as readonly Recorded[];
}

/** The one line of a header, whatever its case. */
export function headerOf(
  headers: Readonly<Record<string, HeaderValue>>,
  name: string,
): string | undefined {
  const found = Object.entries(headers).find(([key]) => key.toLowerCase() === name.toLowerCase());
  return found === undefined ? undefined : String(found[1]);
}
