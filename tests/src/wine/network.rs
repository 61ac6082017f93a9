//! Compute networks in the stand-in.

use hcs_sim::wire::{Call, Control, NetworkOperation};
use serde_json::{Value, json};

use super::Wine;

/// Gives a configuration a network namespace.
pub fn namespace(spec: &mut Value, id: &str) {
    spec["windows"]["network"] = json!({"networkNamespace": id});
}

impl Wine {
    /// Makes a namespace without endpoints.
    pub fn make_namespace(&self, id: &str) {
        self.network(NetworkOperation::CreateNamespace, id, &json!({"Type": "Guest"}));
    }

    /// Makes an endpoint that is in no namespace yet.
    pub fn make_endpoint(&self, id: &str) {
        let document = json!({
            "ID": id,
            "MacAddress": "00-15-5D-00-00-01",
            "IpConfigurations": [{"IpAddress": "10.0.0.2", "PrefixLength": 24}],
            "Routes": [{"NextHop": "10.0.0.1", "DestinationPrefix": "0.0.0.0/0"}],
            "Dns": {"ServerList": ["10.0.0.1"]},
        });
        self.sim.control(Control::Endpoint { id: id.to_owned(), document }).unwrap();
    }

    /// Adds an endpoint to a namespace, or removes it.
    pub fn change_namespace(&self, id: &str, request: &str, endpoint: &str) {
        let document = json!({
            "ResourceType": "Endpoint",
            "RequestType": request,
            "Settings": {"EndpointId": endpoint},
        });
        self.network(NetworkOperation::ModifyNamespace, id, &document);
    }

    fn network(&self, operation: NetworkOperation, id: &str, document: &Value) {
        let (id, document) = (Some(id.to_owned()), Some(document.to_string()));
        let reply = self.sim.call(Call::Network { operation, id, document });
        assert!(!reply.result.is_failure(), "{operation:?}: {reply:?}");
    }
}
