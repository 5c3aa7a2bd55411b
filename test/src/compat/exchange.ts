/** One recorded request sent to a server over HTTP, line by line as it was. */
import { request } from "node:http";
import type { Agent } from "node:http";
import { gunzipSync } from "node:zlib";
import type { Answer } from "./compare.js";
import type { HeaderValue, RecordedRequest } from "./traces.js";

function headerLines(headers: Readonly<Record<string, HeaderValue>>): string[] {
  return Object.entries(headers).flatMap(([name, value]) =>
    [value].flat().flatMap((line) => [name, line]),
  );
}

export function send(
  { method, path, headers, body }: RecordedRequest,
  port: number,
  agent: Agent,
): Promise<Answer> {
  const lines = headerLines(headers);
  const has = (name: string): boolean => lines.some((line) => line.toLowerCase() === name);
  // Node would send an empty body in chunks.
  if (method !== "GET" && method !== "HEAD" && !has("content-length"))
    lines.push("Content-Length", String(Buffer.byteLength(body ?? "")));
  return new Promise((resolve, reject) => {
    const sent = request(
      { host: "127.0.0.1", port, method, path, headers: lines, agent },
      (response) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => chunks.push(chunk));
        response.on("error", reject);
        response.on("end", () => {
          const bytes = Buffer.concat(chunks);
          const isZipped = response.headers["content-encoding"] === "gzip";
          resolve({
            status: response.statusCode ?? 0,
            headers: headersOf(response.rawHeaders),
            body: (isZipped ? gunzipSync(bytes) : bytes).toString("utf8"),
          });
        });
      },
    );
    sent.on("error", reject);
    sent.end(body ?? undefined);
  });
}

function headersOf(raw: readonly string[]): Record<string, string> {
  const headers: Record<string, string> = {};
  for (let at = 0; at + 1 < raw.length; at += 2) headers[raw[at] ?? ""] = raw[at + 1] ?? "";
  return headers;
}
