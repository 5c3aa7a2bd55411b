// Writes the pages of docs that are made from the sources. `npm run docs`
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT, build, install } from "./setup.mjs";

install();
build();
const { configurationPage } = await import("../packages/server/dist/config/reference.js");
const { DRIVERS } = await import("../packages/server/dist/drivers/index.js");
const { EXPORTERS } = await import("../packages/server/dist/exporters/index.js");
const { apiPage } = await import("../packages/server/dist/frontends/rest/api-page.js");
writeFileSync(
  join(ROOT, "docs/configuration.md"),
  configurationPage({ drivers: DRIVERS, exporters: EXPORTERS }),
);
writeFileSync(join(ROOT, "docs/api.md"), apiPage());
