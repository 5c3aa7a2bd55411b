// Makes or renews the development certificates in .tls. `npm run tls [-- --host NAME]`
import { join } from "node:path";
import { ROOT, SERVER, build, install, must } from "./setup.mjs";

install();
build();
const folder = join(ROOT, ".tls");
must(process.execPath, [SERVER, "tls", "init", "--folder", folder, ...process.argv.slice(2)]);
