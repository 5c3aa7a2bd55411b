/** docs/configuration.md, made from the tables that check the configuration. */
import { TLS_KEYS } from "@libstorage/model";
import type { DriverModule } from "../core/driver.js";
import {
  AUTH_KEYS,
  ENDPOINT_KEYS,
  FOREIGN_KEYS,
  KEYS,
  SERVICE_KEYS,
  TLS_KEY_MEANINGS,
} from "./keys.js";
import type { KeySpec } from "./keys.js";
import { keysOfSchema } from "./schema-keys.js";
import type { Modules } from "./services.js";

const HEAD = `<!-- Made by \`npm run docs\` from packages/server/src/config; a test checks that it is current. -->

# Configuration of the server

\`libstorage-server -c FILE\` reads one YAML file. Without \`-c\` it reads \`config.yml\` (or \`config.yaml\`) in \`<etc>\`,
then the same in \`~/.libstorage\`, whose keys count more. Everything is checked before a port opens; all problems are
shown at once, and a key that nothing reads is refused with the nearest one that something does.
\`libstorage-server --check\` does the same, opens the drivers, and says what each can do on this host.

## How a key is found

- Keys are compared without case. \`libstorage.tls.disabled: true\` is the same as three nested keys.
- Flags count before the environment, the environment before files, files before defaults. The variable of a key is
  its name in capitals with \`_\` for \`.\` (\`LIBSTORAGE_TLS_DISABLED\`); its flag is the name in camel case
  (\`--libstorageTlsDisabled\`).
- \`$NAME\` and \`\${NAME}\` in a text of a file stand for an environment variable; \`$$\` is a plain dollar sign. A variable
  that is not set is a problem, not an empty text.
- A key of a service is looked for in \`libstorage.server.services.NAME\`, then in \`libstorage.server\`, then at the
  top; a key of the server in \`libstorage.server\` (a whole \`libstorage:\` block may stand there), then at the top.
  The program's own scope, \`rexray\`, may stand before each.
- Durations are texts such as \`500ms\`, \`30s\`, \`5m\`, \`1h30m\`, \`7d\`.
- Relative paths count from the folder in which the server was started.

A key marked *live* is applied by SIGHUP; for the others the server says that it waits for a restart.

## Folders

| | root | with \`LIBSTORAGE_HOME=/x\` | variable of its own |
| --- | --- | --- | --- |
| \`<etc>\` | \`/etc/libstorage\` | \`/x/etc\` | \`LIBSTORAGE_HOME_ETC\` |
| \`<tls>\` | \`/etc/libstorage/tls\` | \`/x/etc/tls\` | \`LIBSTORAGE_HOME_ETC_TLS\` |
| \`<lib>\` | \`/var/lib/libstorage\` | \`/x/var/lib\` | \`LIBSTORAGE_HOME_LIB\` |
| \`<log>\` | \`/var/log/libstorage\` | \`/x/var/log\` | \`LIBSTORAGE_HOME_LOG\` |
| \`<run>\` | \`/var/run/libstorage\` | \`/x/var/run\` | \`LIBSTORAGE_HOME_RUN\` |

For other users the home is \`~/.libstorage\`. \`LIBSTORAGE_APPTOKEN=rexray\` changes \`libstorage\` to \`rexray\` in all of
these, and \`REXRAY_HOME\` is understood as well.
`;

type Row = readonly string[];

function table(head: Row, rows: readonly Row[]): string {
  const line = (cells: Row): string =>
    `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
}

const code = (text: string): string => (text === "" ? "" : `\`${text}\``);

function rowOf(spec: KeySpec): Row {
  return [code(spec.key), spec.type, code(spec.fallback), spec.isLive ? "live" : "", spec.meaning];
}

const HEADS: Row = ["key", "value", "default", "", "meaning"];

function section(title: string, text: string, specs: readonly KeySpec[]): string {
  return `## ${title}\n\n${text}${table(HEADS, specs.map(rowOf))}\n`;
}

function tlsSection(): string {
  const rows = ["", ...TLS_KEYS].map((key) => {
    const [type = "", meaning = ""] = TLS_KEY_MEANINGS[key] ?? [];
    return [code(key === "" ? "libstorage.tls" : `libstorage.tls.${key}`), type, meaning];
  });
  return `## TLS

For TCP endpoints; Unix sockets have none. Each key is looked for in \`libstorage.server.tls\`, then in
\`libstorage.server.libstorage.tls\`, then in \`libstorage.tls\`. See [tls.md](tls.md). Changes are live, except that TLS is
not switched on or off under open ports.

${table(["key", "value", "meaning"], rows)}
`;
}

function blocks(modules: Readonly<Record<string, Pick<DriverModule, "name" | "config">>>): string {
  const parts = Object.values(modules)
    .toSorted((a, b) => (a.name < b.name ? -1 : 1))
    .map((driver) => {
      const keys = keysOfSchema(driver.config);
      if (keys.length === 0) return `### ${driver.name}\n\nNo keys.\n`;
      const rows = keys.map((key) => [
        code(`${driver.name}.${key.key}`),
        key.type,
        code(key.fallback),
        key.isOptional ? "" : "required",
        key.meaning,
      ]);
      return `### ${driver.name}\n\n${table(HEADS, rows)}\n`;
    });
  return parts.join("\n");
}

function moduleSections({ drivers, exporters }: Modules): string {
  return `## Drivers

A driver's block stands in its service, in \`libstorage.server\` or at the top; each of its keys is looked for by itself.

${blocks(drivers)}
## Exporters

The key \`exporter\` of a service names how hosts other than the server's own get its volumes; \`exports\` is a list of
further ones, through which volumes are served on the server's own host (\`POST /exports/{service}\`). An exporter's block
stands where a driver's may stand.

${blocks(exporters)}`;
}

/** The whole page. */
export function configurationPage(modules: Modules): string {
  return [
    HEAD,
    section("Server", "", Object.values(KEYS)),
    section(
      "Endpoints",
      `Below \`libstorage.server.endpoints.NAME\`; any number of them. All serve the same API. An address is
\`tcp://HOST:PORT\`, \`tcp://:PORT\` (every address of the host), \`unix:///PATH\`, \`tcp\` (a free port of 127.0.0.1) or
\`unix\` (a new socket in \`<run>\`). An address that other hosts can reach needs TLS with client certificates, or
\`libstorage.server.insecure: true\`.\n\n`,
      Object.values(ENDPOINT_KEYS),
    ),
    section(
      "Services",
      `Below \`libstorage.server.services.NAME\`. The driver is the first of \`driver\`, \`libstorage.driver\` and
\`libstorage.storage.driver\` that is set, each looked for in the service, in the server and at the top. Without
services, a \`libstorage.driver\` makes one service of its own name.\n\n`,
      Object.values(SERVICE_KEYS),
    ),
    section(
      "Tokens",
      `In \`libstorage.server\` for all requests, or in a service for its own; what a service leaves out is the server's.
The check is on when \`allow\` or \`deny\` is not empty.\n\n`,
      Object.values(AUTH_KEYS),
    ),
    tlsSection(),
    moduleSections(modules),
    `## Keys of the client

A file may serve both sides. These are the client's, and not looked at by the server:
${FOREIGN_KEYS.map(code).join(", ")}.
`,
  ].join("\n");
}
