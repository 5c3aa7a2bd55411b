/** `docs/api.md`, made from the route table. */
import type * as v from "valibot";
import { HTTP_STATUS, ROUTES } from "@libstorage/model";
import type { Route } from "@libstorage/model";

const HEAD = `# The HTTP API

Made from the route table (\`packages/model/src/routes.ts\`) by \`npm run docs\`; do not edit. A server describes itself at
\`GET /openapi.json\` in the same words.

Sizes are GiB, which the API calls GB. Bodies are JSON objects whatever their \`Content-Type\`; an empty body is \`{}\`. Unknown
members are refused. \`async\` in the query of a task route answers 202 with a task at once; work that takes longer than
\`libstorage.server.tasks.exeTimeout\` answers 408 with its task and goes on.

## Routes

Names in the first column are those of the client's methods, of tasks, and of the log.
`;

const BEYOND = `
## Beyond libStorage

What the original has not; a client that does not know of it is not concerned.

| what | how |
|---|---|
| a write that may be repeated | \`Idempotency-Key: KEY\` on any write: a second request with the same key gets the first one's answer, also after a restart; another request with that key is refused |
| paging | \`limit=N\` and \`after=ID\` on lists; a full page carries \`Link: <…>; rel="next"\`. Over all services \`after\` is \`SERVICE/ID\` |
| filters | \`filter=(&(type=gold)(size>=10)(fields.owner=me*))\`: LDAP's grammar over every member |
| unchanged answers | \`ETag\` on every GET, and 304 to \`If-None-Match\` |
| compression | \`Accept-Encoding: gzip\` |
| cancelling | \`DELETE /tasks/ID\`: the work stops and is taken back |
| progress | \`progress: {done, total, unit}\` in tasks of long work |
| growing a volume | \`POST /volumes/SERVICE/ID?expand\` with \`{"size": GiB}\` |
| work on images | \`POST /volumes/SERVICE/ID?check\`, \`?measure\`, \`?convert\` and \`?shrink\` |
| content | \`GET /volumes/SERVICE/ID/content\` and \`/snapshots/…/content\` stream what is in them, \`POST /volumes/SERVICE?upload&name=NAME&format=FORMAT\` makes a volume of a stream. Formats (\`btrfs-send\`, \`tar\`, \`qcow2\`, \`raw\`) are stated; \`Content-Digest: sha-256=:BASE64:\` is a trailer of every answer, and a header or trailer of every upload. \`Libstorage-Content-Length\` is about how long it is, \`-Size\` the bytes of a disk, \`-Id\` and \`-Parent\` name contents and what an increment builds on; a reader names those it has in \`have=ID,ID\` |
| changed blocks | \`GET /volumes/SERVICE/ID/changes?since=SNAPSHOT\`: a line of JSON for each stretch, \`{"offset": BYTES, "length": BYTES, "kind": "data"\\|"zero"}\` |
| what happens | \`GET /events\`, server-sent events; \`Last-Event-ID\` replays what was missed |
| is it well | \`GET /health\`; \`GET /ready\` is 503 until everything is recovered |
| a fresh look | \`refresh\` on lists asks the backend again |
| the early model | \`?model=early\` on volumes, snapshots and services: the field names of the first published model |
| the exact error | \`Libstorage-Errorcode\` with each error: one of the codes below |
`;

function queryOf({ action, query, task }: Route): string {
  const names = [
    ...(action === undefined ? [] : [`**\`${action}\`**`]),
    ...Object.entries(query).map(([name, kind]) => `\`${name}\` (${kind})`),
    ...(task ? ["`async` (flag)"] : []),
  ];
  return names.join(", ");
}

/** The members of a request body; those that may be left out in brackets. */
function bodyOf({ body }: Route): string {
  const { entries } = (body ?? {}) as { entries?: Record<string, v.GenericSchema> };
  return Object.entries(entries ?? {})
    .map(([name, schema]) => (schema.type === "optional" ? `[\`${name}\`]` : `\`${name}\``))
    .join(", ");
}

export function apiPage(): string {
  const rows = Object.entries<Route>(ROUTES).map(
    ([operation, route]) =>
      `| \`${operation}\` | ${route.method} \`${route.path}\` | ${queryOf(route)} | ${bodyOf(route)} | ${route.status} | ${route.about} |`,
  );
  const errors = Object.entries(HTTP_STATUS).map(([code, status]) => `| \`${code}\` | ${status} |`);
  return [
    HEAD,
    "| operation | route | query (**action**) | body ([may be left out]) | status | what |",
    "|---|---|---|---|---|---|",
    ...rows,
    BEYOND,
    "## Errors",
    "",
    'The body is `{"message": TEXT, "status": NUMBER, "error": DETAIL}`; DETAIL is an object of data, or the message again.',
    "",
    "| code | status |",
    "|---|---|",
    ...errors,
    "",
  ].join("\n");
}
