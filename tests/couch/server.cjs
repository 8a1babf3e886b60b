// PouchDB behind express-pouchdb, the server that speaks CouchDB's protocol, in memory. Prints the port that it took.
"use strict";

const modules = process.argv[2];
const load = (name) => require(require.resolve(name, { paths: [modules] }));
const PouchDB = load("pouchdb-core")
  .plugin(load("pouchdb-adapter-memory"))
  .plugin(load("pouchdb-find"))
  .defaults({ adapter: "memory" });

const app = load("express-pouchdb")(PouchDB, { mode: "minimumForPouchDB" });
const server = app.listen(0, "127.0.0.1", () => console.log(server.address().port));
process.stdin.on("end", () => process.exit(0)).resume();
