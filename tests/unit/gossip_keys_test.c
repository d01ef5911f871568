/* SPDX-License-Identifier: MIT */
/* The cluster's keys on several members: added, used, removed, and who was away
 * meanwhile; sealing switched on. */
#include "gossip_rig.h"

static unsigned n_keys(const struct node *n, uint64_t *used)
{
	struct gossip_key k;
	unsigned count = 0;

	for (size_t at = 0; gossip_key_next(n->g, &at, &k); count++)
		if (k.is_used && used != NULL)
			*used = k.id;
	return count;
}

static uint64_t used_key(const struct node *n)
{
	uint64_t id = 0;

	n_keys(n, &id);
	return id;
}

static uint32_t n_lack(const struct node *n, uint64_t id)
{
	struct gossip_key k;

	for (size_t at = 0; gossip_key_next(n->g, &at, &k);)
		if (k.id == id)
			return k.n_lack;
	return 999;
}

static void test_keys(void)
{
	char text[2048];
	uint64_t old, new, id;

	rig_cluster(3);
	old = used_key(&nodes[0]);
	rig_run(200);
	rig_close(&nodes[2]);
	wait_for(is_seen(&nodes[0], &nodes[2], "dead") &&
			 is_seen(&nodes[1], &nodes[2], "dead"),
		 "c to be dead");

	check_int(gossip_key_add(nodes[0].g, "rubbish", &id), -EINVAL);
	check_int(gossip_key_add(nodes[0].g, NULL, &new), 0);
	wait_for(n_keys(&nodes[1], NULL) == 2, "b to have it");
	wait_for(n_lack(&nodes[0], new) == 1, "only c to lack it, not %u",
		 n_lack(&nodes[0], new));
	check_int(gossip_key_use(nodes[0].g, new), -EBUSY);
	check_int(gossip_key_use(nodes[1].g, new), -EBUSY);
	check_int(gossip_key_use(nodes[0].g, 12345), -ENOENT);
	check_int(gossip_key_remove(nodes[0].g, old), -EBUSY);
	check_int(gossip_key_remove(nodes[0].g, 12345), -ENOENT);
	ok("a key that one who is away lacks is not used (K1)");
	read_file(nodes[0].key, text, sizeof(text));
	check_int(gossip_key_add(nodes[0].g, text, &id), -EINVAL);
	*strstr(strstr(text, "ringfs-key"), "\n") = '\0';
	check_int(gossip_key_add(nodes[0].g, text, &id), -EEXIST);
	check(id == old, "the first in the file is the one in use");
	ok("adding one again does no harm");

	rig_start(&nodes[2]);
	wait_for(n_keys(&nodes[2], NULL) == 2, "c to have it");
	wait_for(n_lack(&nodes[0], new) == 0 && n_lack(&nodes[1], new) == 0,
		 "all to have confirmed it");
	ok("who was away gets it when it is back");

	rig_close(&nodes[2]); /* with the old one in use */
	check_int(gossip_key_use(nodes[0].g, new), 0);
	wait_for(used_key(&nodes[1]) == new, "b to use it");
	rig_run(200);
	check_int(gossip_key_remove(nodes[0].g, old), -EBUSY);
	check_int(gossip_key_remove(nodes[1].g, old), -EBUSY);
	ok("a key that one who is away seals with is not removed");
	rig_start(&nodes[2]);
	wait_for(used_key(&nodes[2]) == new &&all_see(3, "alive"), "c");
	wait_for(gossip_key_remove(nodes[0].g, old) == 0, "the old one to go");
	for (unsigned i = 0; i < 3; i++)
		wait_for(n_keys(&nodes[i], NULL) == 1, "%s to drop it",
			 nodes[i].name);
	rig_run(500);
	check(all_see(3, "alive"), "all is well");
	for (unsigned i = 0; i < 3; i++) {
		struct stat st;

		check_int(used_key(&nodes[i]), new);
		read_file(nodes[i].key, text, sizeof(text));
		check(strstr(text, "ringfs-key-1") != NULL &&
			      strstr(strstr(text, "ringfs-key-1") + 1,
				     "ringfs-key-1") == NULL,
		      "one key: %s", text);
		check(stat(nodes[i].key, &st) == 0 &&
			      (st.st_mode & 0777) == 0600,
		      "mode");
	}
	ok("a key was replaced on all, in memory and on disk");
	check_int(gossip_send(nodes[0].g, &nodes[1].id, GOSSIP_BULK, "hi", 2),
		  0);
	wait_for(wrote(&nodes[1], "from a: hi\n"), "a message");
	for (unsigned i = 0; i < 3; i++)
		rig_close(&nodes[i]);
	for (unsigned i = 0; i < 3; i++)
		rig_start(&nodes[i]);
	wait_for(all_see(3, "alive"), "all to be back");
	ok("and they find each other with it");
	rig_end();
}

/* A message of somebody who is in the cluster, but does not seal. */
static void send_in_clear(const struct node *to, const struct node *as,
			  const uint8_t *bytes, size_t len)
{
	struct seal_config sc = {.cluster = to->cluster,
				 .self = as->id,
				 .boot = 99,
				 .mode = SEAL_OFF,
				 .peers_max = 9};
	struct seal *seal = seal_create(&sc);
	struct net_config config = stranger(seal);
	struct gossip_addr addr = {.ip = {[10] = 0xff, 0xff, 127, 0, 0, 1},
				   .port = to->port};
	struct net *net = net_create(&config);

	net_set_seal(net, seal);
	net_set_self(net, &addr);
	check_int(
		net_send(net, &addr, NULL, GOSSIP_URGENT, NET_KEYS, bytes, len),
		0);
	check_int(net_send(net, &addr, NULL, GOSSIP_URGENT, NET_LAYER, "after",
			   5),
		  0);
	wait_for(to->n_messages > 0, "the message after it");
	is_over = false;
	net_close(net, on_over, NULL);
	wait_for(is_over, "the end");
	seal_destroy(seal);
}

static void test_keys_in_the_clear(void)
{
	struct gossip_stats before, after;
	uint8_t bytes[42] = {1, 1};
	struct seal_key key;
	uint64_t id;

	rig_node(0, NULL)->seal = GOSSIP_CLEAR;
	rig_found(&nodes[0]);
	rig_node(1, &nodes[0])->seal = GOSSIP_CLEAR;
	rig_join(&nodes[1], &nodes[0]);
	wait_for(all_see(2, "alive"), "two");
	rig_run(1500);
	gossip_stats(nodes[0].g, &before);
	check_int(gossip_key_add(nodes[0].g, NULL, &id), 0);
	rig_run(3000);
	gossip_stats(nodes[0].g, &after);
	check_int(after.stream_bytes_out, before.stream_bytes_out);
	check_int(n_keys(&nodes[0], NULL), 2);
	check_int(n_keys(&nodes[1], NULL), 1);
	ok("no key leaves in the clear");
	check_int(seal_key_make(&key), 0);
	id = seal_key_id(&key);
	for (unsigned i = 0; i < 8; i++)
		bytes[2 + i] = (uint8_t)(id >> 8 * i);
	memcpy(bytes + 10, key.b, sizeof(key.b));
	send_in_clear(&nodes[1], &nodes[2], bytes, sizeof(bytes));
	check_int(n_keys(&nodes[1], NULL), 1);
	ok("nor is one taken that came so");
	rig_end();
}

static void test_sealing_a_running_cluster(void)
{
	enum gossip_seal steps[] = {GOSSIP_BOTH, GOSSIP_SEALED};

	rig_node(0, NULL)->seal = GOSSIP_CLEAR;
	rig_found(&nodes[0]);
	rig_node(1, &nodes[0])->seal = GOSSIP_CLEAR;
	rig_join(&nodes[1], &nodes[0]);
	wait_for(all_see(2, "alive"), "two");
	for (unsigned step = 0; step < 2; step++)
		for (unsigned i = 0; i < 2; i++) {
			rig_close(&nodes[i]);
			nodes[i].seal = steps[step];
			rig_start(&nodes[i]);
			wait_for(all_see(2, "alive"), "step %u of %u", step, i);
			check_int(gossip_send(nodes[i].g, &nodes[1 - i].id,
					      GOSSIP_BULK, "hi", 2),
				  0);
			wait_for(wrote(&nodes[1 - i], "hi\n"), "a message");
			nodes[1 - i].diary[0] = '\0';
		}
	ok("a cluster is sealed one member after the other (K5)");
	rig_end();
}

int main(void)
{
	rig_begin();
	test_keys();
	test_keys_in_the_clear();
	test_sealing_a_running_cluster();
	rig_finish();
	return 0;
}
