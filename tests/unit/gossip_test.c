/* SPDX-License-Identifier: MIT */
/* Gossip: several members on one loop, through real sockets. */
#include "gossip_rig.h"

static bool has_word(const char *diary, const char *line, unsigned times)
{
	unsigned n = 0;

	for (; (diary = strstr(diary, line)) != NULL; diary++)
		n++;
	return n == times;
}

static void test_joining(void)
{
	struct gossip_member m;
	uint32_t at = 0;

	rig_cluster(3);
	for (unsigned i = 0; i < 3; i++) {
		struct node *n = &nodes[i];

		check(strncmp(n->diary,
			      i == 0 ? "member a alive\n" : "joined welcome\n",
			      15) == 0,
		      "%s", n->diary);
		check(gossip_find(n->g, &nodes[2].id, &m), "c");
		check(strcmp(m.name, "c") == 0 &&
			      strcmp(m.address, nodes[2].address) == 0,
		      "%s at %s", m.name, m.address);
		check_int(m.boot, 1);
		check_int(m.is_self, i == 2);
		check(strcmp(gossip_address(n->g), n->address) == 0, "%s",
		      gossip_address(n->g));
	}
	ok("three members know each other through one");
	check(wrote(&nodes[0], "asked b\n") && wrote(&nodes[0], "asked c\n"),
	      "%s", nodes[0].diary);
	check(gossip_next(nodes[1].g, &at, &m) && m.is_self, "self first");
	check(gossip_next(nodes[1].g, &at, &m) && !m.is_self, "another");
	check(gossip_next(nodes[1].g, &at, &m) && !m.is_self, "and another");
	check(!gossip_next(nodes[1].g, &at, &m), "no more");
	ok("a member iterates over all, itself first");
	wait_for(wrote(&nodes[1], "member c alive\n") &&
			 wrote(&nodes[2], "member b alive\n"),
		 "news");
	for (unsigned i = 0; i < 3; i++)
		for (unsigned j = 0; j < 3; j++) {
			char line[64];
			snprintf(line, sizeof(line), "member %c alive\n",
				 'a' + j);
			check(has_word(nodes[i].diary, line, 1), "%s",
			      nodes[i].diary);
		}
	ok("each is told of each once, and of itself");
	rig_end();
}

static void test_traits(void)
{
	char long_value[1025] = "";

	rig_cluster(3);
	check_int(gossip_say(nodes[0].g, "weight", "100", 3), 0);
	for (unsigned i = 0; i < 3; i++) {
		wait_for(said_is(&nodes[i], &nodes[0], "weight", "100"),
			 "weight");
		wait_for(said_is(&nodes[i], &nodes[2], "version", "1.2"),
			 "version");
	}
	wait_for(wrote(&nodes[2], "changed a\n"), "on_member");
	ok("what one says, all can read, and are told of");
	check_int(gossip_say(nodes[0].g, "weight", "7", 1), 0);
	wait_for(said_is(&nodes[1], &nodes[0], "weight", "7"), "weight 7");
	check(said_is(&nodes[1], &nodes[2], "weight", NULL), "c said nothing");
	check_int(gossip_say(nodes[0].g, "version", "9", 1), -EINVAL);
	check_int(gossip_say(nodes[0].g, "key-ids", "9", 1), -EINVAL);
	check_int(gossip_say(nodes[0].g, "a/b", "9", 1), -EINVAL);
	check_int(gossip_say(nodes[0].g, "x", long_value, 1025), -EFBIG);
	ok("and change; but not with our words, nor too long");

	/* All go, the last ones that know with a kill's suddenness or not. */
	rig_close(&nodes[0]);
	rig_close(&nodes[1]);
	nodes[1].n_joins = 0;
	rig_start(&nodes[1]);
	check(said_is(&nodes[1], &nodes[0], "weight", "7"), "from disk");
	ok("what was said is known after a restart, from disk");
	rig_start(&nodes[0]);
	wait_for(is_seen(&nodes[1], &nodes[0], "alive"), "a is back");
	wait_for(said_is(&nodes[1], &nodes[0], "weight", NULL), "a's new life");
	check_int(gossip_say(nodes[0].g, "weight", "8", 1), 0);
	wait_for(said_is(&nodes[2], &nodes[0], "weight", "8"), "weight 8");
	ok("a newer life of a member says its own things");
	rig_end();
}

static void test_messages(void)
{
	static uint8_t big[GOSSIP_MESSAGE_MAX + 1];
	struct gossip_id nobody = {{99}};

	rig_cluster(3);
	for (char c = '0'; c <= '9'; c++)
		check_int(gossip_send(nodes[0].g, &nodes[1].id, GOSSIP_URGENT,
				      &c, 1),
			  0);
	wait_for(nodes[1].n_messages == 10, "10 messages");
	check(strstr(nodes[1].diary, "from a: 0\nfrom a: 1\nfrom a: 2\n"), "%s",
	      nodes[1].diary);
	check_int(gossip_send(nodes[2].g, &nodes[1].id, GOSSIP_BULK, big,
			      2 << 20),
		  0);
	wait_for(wrote(&nodes[1], "from c: 2097152 bytes\n"), "a long one");
	check_int(gossip_send(nodes[0].g, &nobody, GOSSIP_URGENT, "x", 1),
		  -EHOSTUNREACH);
	check_int(gossip_send(nodes[0].g, &nodes[0].id, GOSSIP_URGENT, "x", 1),
		  -EHOSTUNREACH);
	check_int(gossip_send(nodes[0].g, &nodes[1].id, GOSSIP_BULK, big,
			      sizeof(big)),
		  -EMSGSIZE);
	ok("messages arrive in order, to those that there are");
	rig_end();
}

static void test_death(void)
{
	struct gossip_member m;

	rig_cluster(3);
	wait_for(said_is(&nodes[1], &nodes[2], "version", "1.2"), "traits");
	uint64_t since = uv_hrtime();
	rig_close(&nodes[2]);
	wait_for(is_seen(&nodes[0], &nodes[2], "dead") &&
			 is_seen(&nodes[1], &nodes[2], "dead"),
		 "c to be dead");
	printf("# dead on all after %.2f s\n",
	       (double)(uv_hrtime() - since) / 1e9);
	check(gossip_find(nodes[0].g, &nodes[2].id, &m) && m.is_accused,
	      "who says so");
	wait_for(wrote(&nodes[0], "member c dead\n"), "on_member");
	ok("one that is closed without leaving is dead to the others");
	check_int(gossip_forget(nodes[0].g, &nodes[1].id), -EBUSY);
	check_int(gossip_forget(nodes[0].g, &nodes[2].id), 0);
	wait_for(is_seen(&nodes[0], &nodes[2], "") &&
			 is_seen(&nodes[1], &nodes[2], ""),
		 "c to be forgotten");
	wait_for(wrote(&nodes[1], "member c gone\n"), "on_member");
	wait_for(said_is(&nodes[1], &nodes[2], "version", NULL), "traits");
	check_int(gossip_forget(nodes[0].g, &nodes[2].id), -ENOENT);
	ok("and can be forgotten, everywhere, with what it said");
	rig_start(&nodes[2]);
	wait_for(all_see(3, "alive"), "c to be back");
	rig_end();
}

static void test_obituary(void)
{
	rig_cluster(3);
	rig_close(&nodes[2]);
	uint64_t since = uv_hrtime();
	gossip_obituary(nodes[0].g, &nodes[2].id, 1);
	check(is_seen(&nodes[0], &nodes[2], "dead"), "at once");
	wait_for(is_seen(&nodes[1], &nodes[2], "dead"), "and elsewhere");
	check(uv_hrtime() - since < 450 * UINT64_C(1000000), "soon");
	ok("a proven end is believed at once, everywhere");
	rig_start(&nodes[2]);
	wait_for(all_see(3, "alive"), "c to be back");
	gossip_obituary(nodes[0].g, &nodes[2].id, 1);
	rig_run(100);
	check(is_seen(&nodes[0], &nodes[2], "alive"), "a newer life");
	ok("and harms no newer life");
	rig_end();
}

static void test_leaving(void)
{
	rig_cluster(3);
	gossip_leave(nodes[2].g);
	wait_for(wrote(&nodes[2], "left\n"), "on_left");
	wait_for(is_seen(&nodes[0], &nodes[2], "left") &&
			 is_seen(&nodes[1], &nodes[2], "left"),
		 "c to have left");
	ok("one that leaves has left");
	check_int(gossip_join(nodes[2].g, nodes[0].address), 0);
	wait_for(all_see(3, "alive"), "c to be back");
	ok("and may come back in the same process (I9)");
	gossip_leave(nodes[2].g);
	wait_for(is_seen(&nodes[0], &nodes[2], "left"), "c to have left");
	rig_close(&nodes[2]);
	rig_start(&nodes[2]);
	wait_for(all_see(3, "alive"), "c to be back");
	ok("or in another");
	check_int(gossip_join(nodes[2].g, "no port"), -EINVAL);
	check_int(gossip_join(nodes[2].g, "1.2.3.4:99999"), -EINVAL);
	rig_end();
}

static void test_restarts(void)
{
	struct gossip_member m;

	rig_cluster(3);
	nodes[2].n_joins = 0;
	rig_close(&nodes[2]);
	rig_start(&nodes[2]);
	wait_for(gossip_find(nodes[0].g, &nodes[2].id, &m) && m.boot == 2 &&
			 all_see(3, "alive"),
		 "the second life");
	ok("restarted on the same port, without being told whom to join");
	rig_close(&nodes[2]);
	nodes[2].port = 0;
	uint64_t since = uv_hrtime();
	rig_start(&nodes[2]);
	wait_for(gossip_find(nodes[1].g, &nodes[2].id, &m) && m.boot == 3,
		 "the third life");
	check(strcmp(m.address, nodes[2].address) == 0, "%s", m.address);
	check(uv_hrtime() - since < UINT64_C(3000000000), "within seconds");
	wait_for(all_see(3, "alive"), "all");
	ok("restarted on another port: known at once (I2)");

	/* All at once, nobody is told anything. */
	nodes[0].n_joins = nodes[1].n_joins = 0;
	for (unsigned i = 0; i < 3; i++)
		rig_close(&nodes[i]);
	for (unsigned i = 0; i < 3; i++)
		rig_start(&nodes[i]);
	wait_for(all_see(3, "alive"), "the whole cluster");
	ok("a cluster that was stopped as a whole finds itself (I7)");
	rig_end();
}

static void refused_with(struct node *n, const char *sentence)
{
	wait_for(wrote(n, "refused "), "%s", sentence);
	check(wrote(n, sentence), "wanted: %s\nbut: %s", sentence, n->diary);
	check(!wrote(n, "joined"), "%s", n->diary);
	rig_close(n);
}

static void test_refusals(void)
{
	char sentence[2048], errmsg[GOSSIP_ERRMSG_SIZE];
	struct gossip_config config;
	struct gossip *g;

	rig_cluster(1);
	struct node *n = rig_node(1, NULL);
	rig_join(n, &nodes[0]);
	snprintf(sentence, sizeof(sentence),
		 "refused the member at %s does not open what we seal: its key "
		 "is another, or it has none (--insecure). Copy its key file "
		 "to %s\n",
		 nodes[0].address, n->key);
	refused_with(n, sentence);
	ok("with another key: refused, and told where to copy which");

	n = rig_node(1, NULL);
	n->seal = GOSSIP_CLEAR;
	rig_join(n, &nodes[0]);
	snprintf(sentence, sizeof(sentence),
		 "refused the member at %s takes sealed connections only",
		 nodes[0].address);
	refused_with(n, sentence);
	ok("in plain text to a sealed cluster: refused");

	n = rig_node(1, NULL);
	unlink(n->key);
	snprintf(n->address, sizeof(n->address), "127.0.0.1:1");
	n->boot = 1;
	config = rig_config(n);
	check_int(gossip_create(&config, &g, errmsg), -ENOKEY);
	check(strstr(errmsg, n->key) && strstr(errmsg, "--insecure"), "%s",
	      errmsg);
	write_file(n->key, "x", 0644);
	check_int(gossip_create(&config, &g, errmsg), -EACCES);
	check(strstr(errmsg, "chmod 600"), "%s", errmsg);
	write_file(n->key, "x", 0600);
	check_int(gossip_create(&config, &g, errmsg), -EINVAL);
	ok("without a key file, or with a bad one: not made at all");

	n = rig_node(1, &nodes[0]);
	nodes[0].refuses = "claims is owner here, and any there";
	rig_join(n, &nodes[0]);
	snprintf(sentence, sizeof(sentence),
		 "refused the member at %s refuses us: claims is owner here, "
		 "and any there\n",
		 nodes[0].address);
	refused_with(n, sentence);
	check(strstr(nodes[0].log, "claims is owner here"), "%s", nodes[0].log);
	ok("the layer above may refuse");
	nodes[0].refuses = NULL;
	rig_join(n, &nodes[0]);
	wait_for(all_see(2, "alive"), "b after all");
	rig_end();

	rig_node(0, NULL)->seal = GOSSIP_CLEAR;
	unlink(nodes[0].key);
	rig_found(&nodes[0]);
	n = rig_node(1, NULL);
	rig_join(n, &nodes[0]);
	refused_with(n, "does not open what we seal");
	ok("sealed to a cluster in plain text: refused");
	n = rig_node(1, NULL);
	n->seal = GOSSIP_CLEAR;
	rig_join(n, &nodes[0]);
	wait_for(all_see(2, "alive"), "two in the clear");
	wait_for(said_is(&nodes[0], n, "version", "1.2"), "traits");
	ok("all in plain text: a cluster");
	rig_end();
}

/* Somebody whose lobby is another version's. */

static char said[GOSSIP_ERRMSG_SIZE + 64];

static void on_answer(void *data, int rc, enum seal_reason reason,
		      const uint8_t *answer, size_t len)
{
	(void)data, (void)reason;
	check_int(rc, 0);
	check(len > 20 && len - 20 < sizeof(said), "%zu", len);
	memcpy(said, answer + 20, len - 20);
	said[len - 20] = '\0';
	snprintf(said + len - 20, 8, " [%u]", answer[1]);
	is_over = true;
}

static void ask_as(const void *question, size_t len)
{
	struct seal_config sc = {
		.self = {{77}}, .boot = 1, .mode = SEAL_OFF, .peers_max = 9};
	struct seal *lobby = seal_create(&sc);
	struct net_config config = stranger(lobby);
	struct gossip_addr to = {.ip = {[10] = 0xff, 0xff, 127, 0, 0, 1},
				 .port = nodes[0].port};
	struct net *net = net_create(&config);

	is_over = false;
	net_ask(net, &to, question, len, on_answer, NULL);
	wait_for(is_over, "an answer");
	is_over = false;
	net_close(net, on_over, NULL);
	wait_for(is_over, "the end");
	seal_destroy(lobby);
}

static void test_versions(void)
{
	rig_node(0, NULL)->seal = GOSSIP_CLEAR;
	rig_found(&nodes[0]);
	ask_as("\1\7\11\0032.0\5\0hello", 14);
	check(strcmp(said, "it runs ringfs 1.2 and speaks protocols 1 to 1, "
			   "you run ringfs 2.0 and speak 7 to 9: update the "
			   "older one [2]") == 0,
	      "%s", said);
	check(!wrote(&nodes[0], "asked"), "not even asked");
	ok("another version is refused, both being named");
	ask_as("\1\1\11\0032.0\5\0hello and more", 23);
	check(strcmp(said, "welcome [1]") == 0, "%s", said);
	ok("one with a version in common is not, whatever it adds");
	ask_as("\1\1\1\377", 4);
	check(strstr(said, "no sense") != NULL, "%s", said);
	ask_as("", 0);
	check(strstr(said, "no sense") != NULL, "%s", said);
	ok("nonsense is answered");
	rig_end();
}

/* A member that has not joined yet cannot answer; nobody can say no. */
static void test_patience(void)
{
	struct node *a = rig_node(0, NULL), *b = rig_node(1, a);
	struct node *c = rig_node(2, a);
	char name[64];
	int udp, tcp;

	/* a's port, but nobody there yet. */
	rig_sockets(a, &udp, &tcp);
	close(udp);
	close(tcp);
	rig_join(b, a);
	snprintf(name, sizeof(name), "localhost:%u", b->port);
	c->joins[0] = "nobody.invalid:7400";
	c->joins[1] = name;
	c->n_joins = 2;
	rig_start(c);
	rig_run(400);
	check(b->diary[0] == '\0' && c->diary[0] == '\0', "%s%s", b->diary,
	      c->diary);
	rig_found(a);
	wait_for(all_see(3, "alive"), "three");
	ok("whoever cannot answer yet is asked again; also by name");
	check(strstr(c->log, "cannot find 'nobody.invalid'"), "%s", c->log);
	rig_end();
}

static void test_wildcard(void)
{
	struct node *a = rig_node(0, NULL), *b = rig_node(1, a);
	struct gossip_member m;
	char by[64], want[64];

	a->bound = "0.0.0.0";
	a->advertise = NULL;
	rig_found(a);
	snprintf(by, sizeof(by), "127.0.0.1:%u", a->port);
	b->bound = "0.0.0.0";
	b->joins[0] = by;
	b->n_joins = 1;
	rig_start(b);
	snprintf(want, sizeof(want), "127.0.0.1:%u", b->port);
	check(strcmp(gossip_address(b->g), want) == 0, "%s",
	      gossip_address(b->g));
	check(strncmp(gossip_address(a->g), "0.0.0.0:", 8) != 0, "%s",
	      gossip_address(a->g));
	wait_for(is_seen(a, b, "alive") && is_seen(b, a, "alive"), "two");
	check(gossip_find(a->g, &b->id, &m) && strcmp(m.address, want) == 0,
	      "%s", m.address);
	ok("bound to a wildcard: reached where the way to the others begins");
	rig_end();
}

static void test_ipv6(void)
{
	struct node *a = rig_node(0, NULL), *b = rig_node(1, a);
	uint16_t port = 0;

	int fd = rig_bind(SOCK_STREAM, "[::1]", &port);
	if (fd < 0) {
		ok("IPv6 # SKIP there is none here");
		return;
	}
	close(fd);
	a->bound = b->bound = "[::1]";
	rig_found(a);
	rig_join(b, a);
	wait_for(all_see(2, "alive"), "two");
	ok("the same over IPv6");
	rig_end();
}

/* ---- What goes wrong ---- */

static void test_stall(void)
{
	rig_cluster(3);
	rig_run(500);
	for (unsigned i = 0; i < 3; i++)
		nodes[i].diary[0] = '\0';
	uv_sleep(3000); /* ten times a suspicion */
	rig_run(1000);
	for (unsigned i = 0; i < 3; i++)
		check(!wrote(&nodes[i], "suspect") && !wrote(&nodes[i], "dead"),
		      "%s", nodes[i].diary);
	ok("a stall of our own loop is nobody's fault but ours (F9)");
	rig_end();
}

static void test_bad_sockets(void)
{
	struct node *n = rig_node(0, NULL);
	char errmsg[GOSSIP_ERRMSG_SIZE];
	struct gossip_config config;
	struct gossip *g;

	rig_create(n);
	rig_end_one(n);
	rig_end();
	n->is_closing = n->is_closed = false;
	config = rig_config(n);
	config.udp_fd = config.tcp_fd = -1;
	check_int(gossip_create(&config, &n->g, errmsg), 0);
	struct gossip_id cluster = {{1}};
	gossip_found(n->g, &cluster);
	check(gossip_start(n->g) < 0, "no sockets");
	rig_close(n);
	ok("without sockets there is no start, but an end");
	config.bound = "nonsense";
	check_int(gossip_create(&config, &g, errmsg), -EINVAL);
	config.bound = n->address;
	config.advertise = "0.0.0.0:1";
	check_int(gossip_create(&config, &g, errmsg), -EINVAL);
	config.advertise = NULL;
	config.name = "a/b";
	check_int(gossip_create(&config, &g, errmsg), -EINVAL);
	config.name = n->name;
	config.boot = 0;
	check_int(gossip_create(&config, &g, errmsg), -EINVAL);
	config.boot = 1;
	n->joins[0] = "::1:7400";
	config.n_joins = 1;
	check_int(gossip_create(&config, &g, errmsg), -EINVAL);
	check(strstr(errmsg, "::1:7400"), "%s", errmsg);
	ok("what cannot be is said");
}

static void test_copied(void)
{
	rig_cluster(3);
	struct node *copy = rig_node(3, &nodes[0]);
	copy->id = nodes[2].id;
	copy->cluster = nodes[2].cluster;
	copy->boot = 7;
	rig_join(copy, &nodes[0]);
	wait_for(wrote(&nodes[2], "copied\n"), "c to hear of its copy");
	check(!wrote(copy, "copied\n"), "the newer one goes on");
	ok("one whose state was copied is told");
	rig_end();
	rig_cluster(3);
	for (int i = 0; i < 2; i++) {
		rig_close(&nodes[2]);
		rig_start(&nodes[2]);
	}
	wait_for(all_see(3, "alive"), "c to be in its third life");
	rig_close(&nodes[2]);
	nodes[2].boot = 1;
	rig_start(&nodes[2]);
	wait_for(wrote(&nodes[2], "copied\n"), "c to hear of its later life");
	ok("and one whose state was restored, though nobody takes its word");
	rig_end();
}

static void test_garbage(void)
{
	struct sockaddr_in sa = {.sin_family = AF_INET};
	struct gossip_stats st;
	uint8_t bytes[2000];
	uint64_t seed = 7;

	rig_cluster(2);
	sa.sin_port = htons(nodes[0].port);
	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int udp = socket(AF_INET, SOCK_DGRAM, 0);
	for (unsigned i = 0; i < 2000; i++) {
		for (size_t j = 0; j < sizeof(bytes); j++)
			bytes[j] = (uint8_t)check_random(&seed);
		if (i % 2 == 1)
			memcpy(bytes, "rf\1\1", 4);
		sendto(udp, bytes, i, 0, (struct sockaddr *)&sa, sizeof(sa));
		if (i % 50 == 0)
			uv_run(&rig_loop, UV_RUN_NOWAIT);
	}
	close(udp);
	for (unsigned i = 0; i < 20; i++) {
		int tcp = socket(AF_INET, SOCK_STREAM, 0);
		check_int(connect(tcp, (struct sockaddr *)&sa, sizeof(sa)), 0);
		check(send(tcp, bytes, sizeof(bytes), MSG_NOSIGNAL) > 0,
		      "send");
		rig_run(5);
		close(tcp);
	}
	gossip_stats(nodes[0].g, &st);
	check(st.n_refused > 1000 && st.refused[2] > 0, "%lu",
	      (unsigned long)st.n_refused);
	check(strcmp(gossip_refused_name(2), "alien") == 0, "%s",
	      gossip_refused_name(2));
	check(gossip_refused_name(15) == NULL, "no more");
	wait_for(all_see(2, "alive"), "both, who may be late");
	rig_run(300);
	check(!wrote(&nodes[0], "dead") && !wrote(&nodes[1], "dead"),
	      "unmoved");
	ok("garbage is counted, and changes nothing");
	rig_end();
}

static void data_file(const struct node *n, char path[600])
{
	snprintf(path, 600, "%s/gossip/data.mdb", n->dir);
}

/* A member's store after something was done to it: it starts, finds the others
 * by what is whole or through a join, and keeps the bad one. */
static void test_damage(void)
{
	char path[600], aside[600], zeros[8192] = "";

	rig_cluster(2);
	check_int(gossip_say(nodes[0].g, "weight", "7", 1), 0);
	wait_for(said_is(&nodes[1], &nodes[0], "weight", "7"), "weight");
	for (unsigned round = 1; round <= 4; round++) {
		rig_close(&nodes[1]);
		data_file(&nodes[1], path);
		struct stat st;
		check_int(stat(path, &st), 0);
		int fd = open(path, O_RDWR);
		check(fd >= 0, "%s", path);
		if (round == 1)
			check_int(ftruncate(fd, 3 * 4096), 0);
		else if (round == 2)
			check_int(pwrite(fd, zeros, 8192, 0), 8192);
		else if (round == 3)
			check_int(ftruncate(fd, 0), 0);
		else
			for (off_t at = 8192; at < st.st_size; at += 97)
				check_int(pwrite(fd, "\377", 1, at), 1);
		close(fd);
		nodes[1].log[0] = '\0';
		rig_start(&nodes[1]);
		check(strstr(nodes[1].log, "is damaged"), "%u: %s", round,
		      nodes[1].log);
		snprintf(aside, sizeof(aside), "%s/gossip.damaged-%u",
			 nodes[1].dir, round);
		check(access(aside, F_OK) == 0, "%s", aside);
		wait_for(all_see(2, "alive"), "b is back");
		wait_for(said_is(&nodes[1], &nodes[0], "weight", "7"), "got");
	}
	ok("a damaged store is set aside, and what was in it comes again");
	rig_end();
}

static void test_full_disk(void)
{
	char path[600];

	rig_cluster(2);
	rig_close(&nodes[1]);
	/* Not full, but as bad: a folder where the new file should be. */
	snprintf(path, sizeof(path), "%s/gossip/new.mdb", nodes[1].dir);
	mkdir(path, 0700);
	rig_start(&nodes[1]);
	wait_for(all_see(2, "alive"), "b");
	wait_for(strstr(nodes[1].log, "cannot write to"), "a warning");
	rmdir(path);
	wait_for(strstr(nodes[1].log, "is written again"), "the end of it");
	check(has_word(nodes[1].log, "cannot write to", 1), "%s", nodes[1].log);
	ok("a store that cannot be written is said once, and tried again");
	rig_end();
}

/* ---- Closing ---- */

static void test_closing(void)
{
	static const char *const where[] = {"member",  "joined", "asked",
					    "message", "left",	 "refused"};
	struct node *a, *b;

	a = rig_node(0, NULL);
	rig_create(a);
	rig_close(a);
	ok("closed before it was started");
	for (unsigned turns = 0; turns < 60; turns += turns < 20 ? 1 : 7) {
		a = rig_node(0, NULL);
		b = rig_node(1, a);
		rig_found(a);
		rig_join(b, a);
		for (unsigned i = 0; i < turns; i++)
			uv_run(&rig_loop, UV_RUN_ONCE);
		rig_end_one(b);
		if (turns % 2 == 0)
			rig_end();
		wait_for(b->is_closed, "b");
		rig_end();
	}
	ok("closed at every stage");
	for (unsigned i = 0; i < sizeof(where) / sizeof(*where); i++) {
		a = rig_node(0, NULL);
		b = rig_node(1, a);
		rig_found(a);
		struct node *who = strcmp(where[i], "asked") == 0 ? a : b;
		who->close_in = where[i];
		if (strcmp(where[i], "refused") == 0)
			a->refuses = "no";
		rig_join(b, a);
		if (strcmp(where[i], "message") == 0) {
			wait_for(is_seen(a, b, "alive"), "b");
			gossip_send(a->g, &b->id, GOSSIP_URGENT, "x", 1);
		} else if (strcmp(where[i], "left") == 0) {
			wait_for(all_see(2, "alive"), "b");
			gossip_leave(b->g);
		}
		wait_for(who->is_closed, "closed in %s", where[i]);
		rig_end();
	}
	ok("closed from inside of every callback");
	a = rig_node(0, NULL);
	a->joins[0] = "nobody.invalid:1";
	a->n_joins = 1;
	rig_start(a);
	rig_run(5);
	rig_close(a);
	ok("closed while a name is being resolved");
	a = rig_node(0, NULL);
	a->joins[0] = "127.0.0.1:1";
	a->n_joins = 1;
	rig_start(a);
	gossip_leave(a->g);
	wait_for(wrote(a, "left\n"), "left without anybody");
	rig_close(a);
	ok("left before it has joined");
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} tests[] = {
		{"joining", test_joining},     {"traits", test_traits},
		{"messages", test_messages},   {"death", test_death},
		{"obituary", test_obituary},   {"leaving", test_leaving},
		{"restarts", test_restarts},   {"refusals", test_refusals},
		{"versions", test_versions},   {"patience", test_patience},
		{"wildcard", test_wildcard},   {"ipv6", test_ipv6},
		{"copied", test_copied},       {"stall", test_stall},
		{"sockets", test_bad_sockets}, {"garbage", test_garbage},
		{"damage", test_damage},       {"full", test_full_disk},
		{"closing", test_closing},
	};

	rig_begin();
	for (size_t i = 0; i < sizeof(tests) / sizeof(*tests); i++)
		if (argc < 2 || strcmp(argv[1], tests[i].name) == 0)
			tests[i].run();
	rig_finish();
	return 0;
}
