/** HTTP load on loopback, bounded in time and connections. */
import autocannon from "autocannon";

export interface Load {
  readonly url: string;
  /** Of a server on a Unix socket; the URL then gives only the path. */
  readonly socketPath?: string;
  readonly seconds: number;
  readonly connections?: number;
  readonly method?: "GET" | "POST";
  readonly body?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** @returns answers a second @throws when an answer is no success */
export async function answersPerSecond(load: Load): Promise<number> {
  const result = await autocannon({
    url: load.url,
    duration: load.seconds,
    connections: load.connections ?? 16,
    method: load.method ?? "GET",
    ...(load.socketPath !== undefined && { socketPath: load.socketPath }),
    ...(load.body !== undefined && { body: load.body }),
    ...(load.headers !== undefined && { headers: { ...load.headers } }),
  });
  if (result.non2xx > 0 || result.errors > 0)
    throw new Error(`${load.url}: ${result.non2xx} refusals, ${result.errors} errors`);
  return (result["2xx"] as number) / result.duration;
}
